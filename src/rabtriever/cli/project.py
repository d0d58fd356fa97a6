"""`rabtriever init`: a new project, so that an installed package can train."""

from __future__ import annotations

import argparse
import shlex
import shutil
import tempfile
from pathlib import Path

from rabtriever.ops.examples import EXAMPLE

_PACKAGE = Path(__file__).resolve().parent.parent
# what a project needs, in the order of importance for whoever reads it
TEMPLATE = (
    "params.yaml",
    "dvc.yaml",
    "prefect.yaml",
    "flows",
    "profiles",
    "data/household",
    ".dvc/config",
    ".dvc/.gitignore",
    ".dvcignore",
    ".gitignore",
    "mlruns/.gitignore",
)
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "study", "generate.py", "world")


def init(parsed: argparse.Namespace) -> None:
    """Copies the files of a new project into a folder, all of them or none.

    Raises:
        FileExistsError: one of them is there already.
        FileNotFoundError: the package was installed without them.
    """
    folder, source = Path(parsed.folder), _source()
    if there := [name for name in TEMPLATE if (folder / name).exists()]:
        raise FileExistsError(f"{folder} has {', '.join(there)} already; name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".init-") as scratch:
        for name in TEMPLATE:
            _copy(source / name, Path(scratch) / name)
        for name in TEMPLATE:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(scratch) / name).rename(folder / name)
    print(f"{folder} is a project now. Next:")
    print(f"  cd {folder}")
    print("  python -m flows.retrain                     trains on the example data in data/household")
    print("  python -m flows.retrain --data FOLDER       trains on your own, a folder of BEIR layout")
    print(f"  rabtriever search {shlex.quote(EXAMPLE)}")
    print("Training needs the extras: pip install 'rabtriever[train,ops]'")


def _source() -> Path:
    """Where the files are: beside the package in a wheel, the repository's own in a checkout."""
    for folder in (_PACKAGE / "template", _PACKAGE.parent.parent):
        if all((folder / name).exists() for name in TEMPLATE):
            return folder
    raise FileNotFoundError(f"no template beside {_PACKAGE}, expected {', '.join(TEMPLATE)}; install the package again")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=_LEFT_OUT)
    else:
        shutil.copyfile(source, target)
