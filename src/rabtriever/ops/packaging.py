"""What a registered version carries: the retriever folder as a pyfunc, and the code that MLflow's server answers with.

The code is told by what it means: comments, docstrings and layout are not part of its identity.
"""

from __future__ import annotations

import functools
import importlib.metadata
import shutil
from pathlib import Path

from rabtriever.core.artifacts import ArtifactMismatchError
from rabtriever.core.code import combined, meaning
from rabtriever.ops.answering import ARTIFACTS, FORMAT
from rabtriever.ops.examples import EXAMPLE

MODEL_FOLDER = "model"  # of a version's run
_PACKAGE = Path(__file__).resolve().parent.parent
_SCRIPT = Path("ops/pyfunc.py")
SERVED = ("core", "data", "lm", "models", "search", "ops/pyfunc.py")  # what decides on an answer
# what ops/pyfunc.py and all that it imports come with
RUNTIME = ("mlflow", "numpy", "pandas", "torch", "transformers", "safetensors", "faiss-cpu", "numba")
RUNTIME += ("pydantic", "ruamel.yaml")


@functools.cache
def code_here() -> str:
    """Returns the identity of the code here that decides on an answer."""
    return _identity(_PACKAGE)


def carried_code(model: Path) -> str:
    """Returns the identity of the code in the model folder of a version, which is read and not executed.

    Raises:
        FileNotFoundError: there is no code.
        ArtifactMismatchError: a file of it is not Python, or the script that MLflow's server starts is another one.
    """
    copied = model / "code" / _PACKAGE.name
    if meaning(model / _SCRIPT.name) != meaning(copied / _SCRIPT):
        raise ArtifactMismatchError(f"{model / _SCRIPT.name} is not the {_SCRIPT} that was registered with it")
    return _identity(copied)


def _identity(package: Path) -> str:
    """Returns the sha256 (64 hex digits) of what the served files of a package mean, by name."""
    found = [path for part in SERVED for path in (package / part, *(package / part).rglob("*.py")) if path.is_file()]
    if not found:
        raise FileNotFoundError(f"no Python file in {package}, expected the code of a package")
    return combined(package, found, meaning)


def save_model(folder: Path, target: Path) -> None:
    """Writes a retriever folder as a pyfunc that carries the package's own code, for MLflow's server alone."""
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType, Array, Object, Property

    types = {"doc_id": "string", "score": "double", "title": "string", "text": "string"}
    hit = Object([Property(name, kind) for name, kind in types.items()])
    signature = ModelSignature(
        # of any type: what is not a text or a number reaches our own sentence, and a `k` may be null in some rows
        inputs=Schema([ColSpec(AnyType(), "query"), ColSpec(AnyType(), "k", required=False)]),
        outputs=Schema([ColSpec("string", "query"), ColSpec(Array(hit), "hits")]),
        params=ParamSchema([ParamSpec("k", "double", 10)]),
    )
    mlflow.pyfunc.save_model(
        str(target),
        python_model=str(_PACKAGE / "ops/pyfunc.py"),
        artifacts={"retriever": str(folder)},
        code_paths=[str(_PACKAGE)],
        signature=signature,
        input_example=pd.DataFrame({"query": [EXAMPLE], "k": [3]}),
        pip_requirements=_requirements(),
        metadata={"rabtriever_format": FORMAT},
    )
    for path in sorted((target / ARTIFACTS / folder.name).rglob(".*"), reverse=True):  # not part of an artefact
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _requirements() -> list[str]:
    """Returns what the copied package needs to answer, at the versions in use, without a wheel's local tag."""
    return [f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in RUNTIME]
