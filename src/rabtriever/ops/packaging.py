"""What a registered version carries: the retriever folder as a pyfunc, and the code that its server answers with."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from rabtriever.core.artifacts import code_hash
from rabtriever.ops.examples import EXAMPLE

MODEL_FOLDER = "model"  # of a version's run
_PACKAGE = Path(__file__).resolve().parent.parent
SERVED = ("core", "data", "lm", "models", "search", "ops/pyfunc.py")  # what decides on an answer
# what ops/pyfunc.py and all that it imports come with
RUNTIME = ("mlflow", "numpy", "pandas", "torch", "transformers", "safetensors", "faiss-cpu", "numba")
RUNTIME += ("pydantic", "ruamel.yaml")


def code_here() -> str:
    """Returns the identity of the code here that decides on an answer."""
    return code_hash(_PACKAGE, SERVED)


def carried_code(model: Path) -> str:
    """Returns the identity of the code in the model folder of a version.

    Raises:
        FileNotFoundError: there is no code.
    """
    return code_hash(model / "code" / _PACKAGE.name, SERVED)


def save_model(folder: Path, target: Path) -> None:
    """Writes a retriever folder as a pyfunc that carries the package's own code."""
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array, Object, Property

    types = {"doc_id": "string", "score": "double", "title": "string", "text": "string"}
    hit = Object([Property(name, kind) for name, kind in types.items()])
    signature = ModelSignature(
        inputs=Schema([ColSpec("string", "query"), ColSpec("long", "k", required=False)]),
        outputs=Schema([ColSpec("string", "query"), ColSpec(Array(hit), "hits")]),
        params=ParamSchema([ParamSpec("k", "long", 10)]),
    )
    mlflow.pyfunc.save_model(
        str(target),
        python_model=str(_PACKAGE / "ops/pyfunc.py"),
        artifacts={"retriever": str(folder)},
        code_paths=[str(_PACKAGE)],
        signature=signature,
        input_example=pd.DataFrame({"query": [EXAMPLE], "k": [3]}),
        pip_requirements=_requirements(),
    )


def _requirements() -> list[str]:
    """Returns what the copied package needs to answer, at the versions in use, without a wheel's local tag."""
    return [f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in RUNTIME]
