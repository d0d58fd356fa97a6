"""Adds the files that `rabtriever init` copies to the wheel, so that the repository holds each of them once."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
PATTERNS = (
    "params.yaml",
    "dvc.yaml",
    "prefect.yaml",
    "flows/*.py",
    "profiles/*.yaml",
    ".dvc/config",
    ".dvc/.gitignore",
    ".dvcignore",
    ".gitignore",
    "mlruns/.gitignore",
    "data/household/*.jsonl",
    "data/household/qrels/*.tsv",
    "data/household/README.md",
)


class BuildWithTemplate(build_py):
    """Copies the template beside the package; an editable install reads it from the repository itself."""

    def run(self) -> None:
        """See build_py."""
        super().run()
        if self.editable_mode:
            return
        template = Path(self.build_lib) / "rabtriever" / "template"
        for path in (found for pattern in PATTERNS for found in ROOT.glob(pattern)):
            target = template / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


setup(cmdclass={"build_py": BuildWithTemplate})
