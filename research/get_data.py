"""Copies the data sets of the study from a folder into data/sets, and reports what is missing and where it is from.

python -m research.get_data FOLDER          # FOLDER/<set> is a folder in BEIR layout, its files plain or .gz
python -m research.get_data                 # only reports what is in data/sets
python -m research.get_data FOLDER --only alfred,argkp
python -m research.get_data --pages         # writes the tables of docs/datasets.md

A set is copied when it meets the data contract and differs from the copy that is there. A copy appears whole or not at
all. The exit status is 0 when every set asked for is in data/sets and none was refused, 1 otherwise, 2 for wrong usage.
Without --only, the sets that a study uses are asked for; the others are copied where they are found.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from rabtriever.core.artifacts import atomic_folder, atomic_write, content_hash
from rabtriever.data.beir_io import SPLITS, DataContractError, load_dataset
from rabtriever.data.preparation import check_folder
from research.datasets import BY_NAME, SETS, DataSet, overview_table, source_table

ROOT = Path(__file__).resolve().parents[1]
TARGET = Path("data/sets")
PAGE = Path("docs/datasets.md")
DATA = ("corpus.jsonl", "queries.jsonl", *(f"qrels/{split}.tsv" for split in SPLITS))
EXTRAS = ("README.md", "rationales.jsonl", "out_of_scope.jsonl")
PRESENT = ("copied", "unchanged", "kept")  # kept: from an earlier folder, the present one lacks it
TABLES = {"overview": overview_table, "sources": source_table}


class Outcome(NamedTuple):
    """What became of one set.

    Attributes:
        name: The set.
        state: "copied", "unchanged", "kept", "missing" or "refused".
        note: What a person should know about it.
    """

    name: str
    state: str
    note: str


def fetch(one: DataSet, folder: Path | None, target: Path) -> Outcome:
    """Copies a set from `folder`/<name> to `target`/<name> unless the copy there has the same bytes.

    Args:
        one: The set.
        folder: Where the user keeps sets in BEIR layout; None only looks at `target`.
        target: Where the studies look for sets.

    Raises:
        OSError: If reading or writing fails (permissions, disk full); an earlier copy stays.
    """
    source, copy = folder and folder / one.name, target / one.name
    if source is None or not source.is_dir():
        return _look(one, "kept", copy) if copy.is_dir() else Outcome(one.name, "missing", _origin(one))
    before = _digests(source, _names(source))
    if copy.is_dir() and before == _digests(copy, _all_names(copy)):
        return _look(one, "unchanged", copy)
    try:
        found = check_folder(source)["hash"]
        with atomic_folder(copy) as temporary:
            for name in before:
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, temporary / name)
            if _digests(temporary, _all_names(temporary)) != before:
                raise DataContractError(f"{source} changed while it was copied; run again when it is complete")
    except (DataContractError, FileNotFoundError) as error:
        stays = f"\nthe earlier copy in {copy} stays" if copy.is_dir() else ""
        return Outcome(one.name, "refused", f"{error}{stays}")
    return Outcome(one.name, "copied", _facts(one, found))


def _look(one: DataSet, state: str, copy: Path) -> Outcome:
    """The outcome for a copy that is already there."""
    try:
        return Outcome(one.name, state, _facts(one, load_dataset(copy).hash))
    except (DataContractError, FileNotFoundError) as error:
        return Outcome(one.name, "refused", f"the copy is damaged: {error}\nremove {copy} and run again")


def _names(source: Path) -> list[str]:
    """Names of the files of a set, as they are spelled in `source`."""
    spelled = [name for plain in DATA for name in (plain, plain + ".gz")]
    return [name for name in (*spelled, *EXTRAS) if (source / name).is_file()]


def _all_names(copy: Path) -> list[str]:
    found = (path.relative_to(copy) for path in sorted(copy.rglob("*")) if path.is_file())
    return [name.as_posix() for name in found if not name.name.startswith(".")]


def _digests(folder: Path, names: Sequence[str]) -> dict[str, str]:
    return {name: content_hash(folder / name) for name in names}


def _facts(one: DataSet, found: str) -> str:
    if found != one.hash:
        return f"{one.licence}; other data (hash {found}) than the study measured (hash {one.hash})"
    return f"{one.licence}; {one.documents:,} documents, {' / '.join(f'{count:,}' for count in one.queries)} queries"


def _origin(one: DataSet) -> str:
    return f"{one.licence}; from {one.url}"


def report(outcomes: Sequence[Outcome], asked: Collection[str], target: Path) -> str:
    """The table of all sets, the reasons of refusals, and what is still to be had, as text."""
    width = max(len(one.name) for one in outcomes)
    lines = [f"{'set':<{width}}  {'state':<9}  licence; size or source"]
    for one in outcomes:
        first, *rest = one.note.splitlines()
        optional = "" if one.name in asked or one.state != "missing" else " (no study uses it yet)"
        lines.append(f"{one.name:<{width}}  {one.state:<9}  {first}{optional}")
        lines += [f"{'':<{width}}  {'':<9}  {more}" for more in rest]
    there = sum(one.state in PRESENT for one in outcomes if one.name in asked)
    absent = [one.name for one in outcomes if one.name in asked and one.state not in PRESENT]
    place = target.relative_to(ROOT) if target.is_relative_to(ROOT) else target
    lines.append(f"\n{there} of {len(asked)} sets asked for are ready in {place}")
    if absent:
        lines.append(f"not ready: {', '.join(absent)}; {PAGE} says what to download and how it is converted")
    return "\n".join(lines)


def write_page(path: Path) -> None:
    """Writes the tables between `<!-- sets: NAME -->` and `<!-- end -->` of docs/datasets.md anew."""
    with atomic_write(path) as handle:
        handle.write(rendered(path.read_text(encoding="utf-8")))


def rendered(page: str) -> str:
    """The text of the page with its tables written anew."""
    block = re.compile(r"(<!-- sets: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
    return block.sub(lambda match: f"{match.group(1)}{TABLES[match.group(2)]()}\n{match.group(3)}", page)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m research.get_data", description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=_folder, help="folder with the sets in BEIR layout, one folder each")
    parser.add_argument("--only", metavar="SETS", help="names of the sets to ask for, separated by commas")
    parser.add_argument("--target", type=Path, default=ROOT / TARGET, help=f"where copies go (default: {TARGET})")
    parser.add_argument("--pages", action="store_true", help=f"write the tables of {PAGE}, copy nothing")
    parsed = parser.parse_args(arguments)
    if parsed.pages:
        write_page(ROOT / PAGE)
        return 0
    if parsed.folder is not None and not parsed.folder.is_dir():
        parser.error(f"there is no folder {parsed.folder}; name the folder that has the sets (make data FROM=folder)")
    only = parsed.only.split(",") if parsed.only else None
    if unknown := sorted(set(only or ()) - set(BY_NAME)):
        parser.error(f"there is no set {', '.join(unknown)}; expected some of {', '.join(BY_NAME)}")
    wanted = [one for one in SETS if only is None or one.name in only]
    asked = {one.name for one in wanted if only or one.studied}
    outcomes = []
    for one in wanted:
        print(f"data: looking at {one.name}", file=sys.stderr, flush=True)
        try:
            outcomes.append(fetch(one, parsed.folder, parsed.target))
        except OSError as error:  # no disk space, no permission: the next sets would fail alike
            print(f"data: {one.name} could not be copied: {error}; earlier copies stay", file=sys.stderr)
            return 1
    print(report(outcomes, asked, parsed.target))
    if parsed.folder is not None and (others := _others(parsed.folder)):
        print(f"not in the list of sets, so left alone: {', '.join(others)}")
    complete = all(one.state in PRESENT for one in outcomes if one.name in asked)
    return 0 if complete and not any(one.state == "refused" for one in outcomes) else 1


def _folder(text: str) -> Path | None:
    """The folder named; None for an empty name, which `make data` without FROM gives."""
    return Path(text).expanduser() if text else None


def _others(folder: Path) -> list[str]:
    """Names of data sets in the folder that are not in the list."""
    found = (path for path in sorted(folder.iterdir()) if path.is_dir() and path.name not in BY_NAME)
    return [path.name for path in found if any((path / name).is_file() for name in ("corpus.jsonl", "corpus.jsonl.gz"))]


if __name__ == "__main__":
    sys.exit(main())
