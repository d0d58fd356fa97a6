"""`rabtriever init`: a new project, so that an installed package can train."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

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
_NO_GIT = "    no_scm = true\n"


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
        _adapt(Path(scratch), in_git=any((one / ".git").exists() for one in folder.resolve().parents))
        for name in TEMPLATE:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(scratch) / name).rename(folder / name)
    print(f"{folder} is a project now. Next:")
    print(f"  cd {folder}")
    print("  python -m flows.retrain                     trains on the example data in data/household")
    print("  python -m flows.retrain --data FOLDER       trains on your own, a folder of BEIR layout")
    print("  rabtriever search QUERY                     asks the champion")
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


def _adapt(project: Path, in_git: bool) -> None:
    """Leaves out what holds for the repository alone: code as dependencies, and git where there is none."""
    pipeline = project / "dvc.yaml"
    lines = pipeline.read_text(encoding="utf-8").splitlines(keepends=True)
    note = "# The code is the installed package: after an upgrade, dvc repro --force runs all stages again.\n"
    kept = [line for line in lines if not line.strip().startswith("- src/rabtriever")]
    pipeline.write_text(note + "".join(kept), encoding="utf-8")
    if not in_git:
        config = project / ".dvc" / "config"
        config.write_text(config.read_text().replace("[core]\n", "[core]\n" + _NO_GIT, 1))
