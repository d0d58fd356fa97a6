"""Copies the data sets of the studies from a folder into data/sets, and reports what is missing and where it is from.

python -m research.get_data FOLDER          # FOLDER/<set> is a folder in BEIR layout, its files plain or .gz
python -m research.get_data                 # only reports what is in data/sets
python -m research.get_data FOLDER --only alfred,argkp

A set is copied when it meets the data contract and differs from the copy that is there; it appears whole or not at all.
The exit status is 0 when every set asked for is there. Without --only, those that a study uses are asked for; the
others of sets.tsv are copied where they are found.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rabtriever.core.artifacts import atomic_folder, content_hash
from rabtriever.core.settings import read_settings
from rabtriever.data.beir_io import DataContractError, load_dataset
from rabtriever.data.preparation import check_folder

ROOT = Path(__file__).resolve().parents[1]
LIST, STUDIES, TARGET = ROOT / "research/sets.tsv", ROOT / "research/studies", ROOT / "data/sets"
FILES = ("*.jsonl", "*.jsonl.gz", "qrels/*.tsv", "qrels/*.tsv.gz", "README.md")
PRESENT = ("copied", "unchanged", "kept")  # kept: from an earlier folder, the present one lacks it


class Outcome(NamedTuple):
    """What became of a set: copied, unchanged, kept, missing or refused; and what a person should know."""

    state: str
    note: str


def known_sets(path: Path = LIST) -> dict[str, dict[str, str]]:
    """The sets of sets.tsv by name, each with `licence`, `url`, and `hash` of the data that were measured."""
    with open(path, encoding="utf-8", newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file, delimiter="\t")}


def used_sets(folder: Path = STUDIES) -> set[str]:
    """Names of the sets that a study uses; the shipped one is not among them."""
    specs = [spec for path in folder.glob("*.yaml") for spec in read_settings(path)["sets"].values()]
    return {Path(spec["source"]).name for spec in specs if Path(spec["source"]).parts[:2] == ("data", "sets")}


def fetch(one: Mapping[str, str], folder: Path | None, target: Path) -> Outcome:
    """Copies a set from `folder`/<name> to `target`/<name> unless the copy there has the same bytes.

    Args:
        one: a set of `known_sets`.
        folder: where the user keeps sets in BEIR layout; None only looks at `target`.
        target: where the studies look for sets.

    Raises:
        OSError: reading or writing failed (permissions, disk full); an earlier copy stays.
    """
    source, copy = folder and folder / one["name"], target / one["name"]
    there = _digests(copy)
    if source is None or not source.is_dir():
        return _looked_at(one, "kept", copy) if there else Outcome("missing", f"{one['licence']}; from {one['url']}")
    before = _digests(source)
    if before == there:
        return _looked_at(one, "unchanged", copy)
    try:
        check_folder(source)
        with atomic_folder(copy) as temporary:
            for name in before:
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, temporary / name)
            if _digests(temporary) != before:
                raise DataContractError(f"{source} changed while it was copied; run again when it is complete")
    except (DataContractError, FileNotFoundError) as error:
        return Outcome("refused", str(error) + ("; the earlier copy stays" if there else ""))
    return _looked_at(one, "copied", copy)


def _looked_at(one: Mapping[str, str], state: str, copy: Path) -> Outcome:
    try:
        found = load_dataset(copy)
    except (DataContractError, FileNotFoundError) as error:
        return Outcome("refused", f"the copy is damaged: {error}; remove {copy} and run again")
    other = "" if found.hash == one["hash"] else f"; other data ({found.hash}) than were measured ({one['hash']})"
    return Outcome(state, f"{one['licence']}; {len(found.corpus):,} documents, {len(found.queries):,} queries{other}")


def _digests(folder: Path) -> dict[str, str]:
    paths = sorted(path for pattern in FILES for path in folder.glob(pattern))
    return {path.relative_to(folder).as_posix(): content_hash(path) for path in paths}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m research.get_data", description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", default="", help="folder with the sets in BEIR layout, one folder each")
    parser.add_argument("--only", metavar="SETS", help="names of the sets to ask for, separated by commas")
    parser.add_argument("--target", type=Path, default=TARGET, help="where copies go (default: data/sets)")
    parsed = parser.parse_args(arguments)
    folder = Path(parsed.folder).expanduser() if parsed.folder else None  # `make data` without FROM gives an empty one
    if folder is not None and not folder.is_dir():
        parser.error(f"there is no folder {folder}; name the folder that has the sets (make data FROM=folder)")
    sets = known_sets()
    asked = set(parsed.only.split(",")) if parsed.only else used_sets()
    if unknown := sorted(asked - set(sets)):
        parser.error(f"there is no set {', '.join(unknown)}; expected some of {', '.join(sets)}")
    try:
        found = {name: fetch(sets[name], folder, parsed.target) for name in (sorted(asked) if parsed.only else sets)}
    except OSError as error:  # no disk space, no permission: the next sets would fail alike
        print(f"data: a set could not be copied: {error}; earlier copies stay", file=sys.stderr)
        return 1
    for name, outcome in found.items():
        print(f"{name:<16}{outcome.state:<11}{outcome.note}")
    absent = [name for name in sorted(asked) if found[name].state not in PRESENT]
    told = f"; not ready: {', '.join(absent)}, see docs/datasets.md" if absent else ""
    print(f"\n{len(asked) - len(absent)} of {len(asked)} sets asked for are ready{told}")
    return 1 if absent or any(one.state == "refused" for one in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
