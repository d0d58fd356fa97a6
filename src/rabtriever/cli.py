"""The `rabtriever` command: search, inspect an artefact, roll back. Imports nothing heavy before it has parsed."""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: words after the program's name; those of the process by default.

    Returns:
        exit status: 0 done, 1 failed with one message on stderr, 2 wrong usage.
    """
    parsed = _parser().parse_args(arguments)
    os.environ.setdefault("DO_NOT_TRACK", "true")  # before any library that asks for it is imported
    from rabtriever.core.artifacts import ArtifactMismatchError
    from rabtriever.ops.tracking import store_errors

    try:
        with store_errors():
            parsed.run(parsed)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, ArtifactMismatchError) as error:
        if os.environ.get("RABTRIEVER_DEBUG"):
            raise
        print(f"rabtriever {parsed.command}: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rabtriever", description="Use the retrievers this project builds.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    search = commands.add_parser("search", help="rank documents for a query")
    search.add_argument("query", help="what is wanted, in your own words")
    search.add_argument("-k", type=_positive, default=5, help="number of documents (default: %(default)s)")
    search.add_argument(
        "--model",
        default="champion",
        metavar="MODEL",
        help="champion, previous, a version number, or a retriever folder (default: %(default)s)",
    )
    search.set_defaults(run=_search)
    inspect = commands.add_parser("inspect", help="check an artefact folder and show what it was made from")
    inspect.add_argument("folder", help="a folder with a manifest.json, such as models/retriever")
    inspect.set_defaults(run=_inspect)
    rollback = commands.add_parser("rollback", help="put the previous champion back into service")
    rollback.add_argument(
        "--to", metavar="VERSION", default="previous", help="a version number in its place (default: %(default)s)"
    )
    rollback.set_defaults(run=_rollback)
    return parser


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of documents; give a whole number from 1")
    return value


def _search(parsed: argparse.Namespace) -> None:
    if not parsed.query.strip():
        raise ValueError("the query is blank; write what is wanted")
    try:
        parsed.query.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the query is {parsed.query!r}, which is no Unicode text; give it in UTF-8") from error
    looks_like_path = os.sep in parsed.model or parsed.model in (".", "..")
    is_folder = looks_like_path or (Path(parsed.model).is_dir() and parsed.model not in ("champion", "previous"))
    hits = (_ask_folder if is_folder else _ask_version)(parsed.model, parsed.query, parsed.k)
    width = len(str(len(hits)))
    for rank, hit in enumerate(hits, start=1):
        print(f"{rank:>{width}}. {hit['score']:8.3f}  {hit['doc_id']}  {hit['title']}".rstrip())
        print(textwrap.fill(hit["text"], 100, initial_indent="    ", subsequent_indent="    "))


def _ask_folder(folder: str, query: str, k: int) -> list[dict[str, Any]]:
    from rabtriever.core.artifacts import read_manifest

    read_manifest(folder, "retriever", verify=False)  # a wrong folder is told of before the seconds that loading takes
    from rabtriever.search.retriever import Retriever

    return [hit._asdict() for hit in Retriever.load(folder).search([query], k=k)[0]]


def _ask_version(model: str, query: str, k: int) -> list[dict[str, Any]]:
    """What an alias or version number answers, by the code that it carries, as its server would."""
    if not (model in ("champion", "previous") or model.isdigit()):
        raise FileNotFoundError(
            f"{model!r} is no folder; expected champion, previous, a version number, or a retriever folder"
        )
    from rabtriever.ops import registry, tracking

    tracking.require()
    version = registry.get(model)
    if version is None:
        raise ValueError(f"the registry has no {model!r}; run make run to train and promote one, or name a folder")
    return registry.answer(version, query, k)


def _inspect(parsed: argparse.Namespace) -> None:
    from rabtriever.core.artifacts import MANIFEST_NAME, read_json, read_manifest

    path = Path(parsed.folder) / MANIFEST_NAME
    found = read_json(path) if path.is_file() else {}
    manifest = read_manifest(parsed.folder, found.get("kind", "artefact") if isinstance(found, dict) else "artefact")
    print(f"kind     {manifest.kind}\nhash     {manifest.hash}")
    for name, parent in manifest.parents.items():
        print(f"parent   {name}: {parent}")
    for name, value in manifest.info.items():
        print(f"info     {name}: {json.dumps(value, ensure_ascii=False)}")
    width = max((len(name) for name in manifest.files), default=0)
    for name, record in manifest.files.items():
        print(f"file     {name:<{width}}  {record['bytes']:>13,} bytes  {record['sha256'][:12]}")
    total = sum(record["bytes"] for record in manifest.files.values())
    print(f"total    {total:,} bytes in {len(manifest.files)} files, all as the manifest says")


def _rollback(parsed: argparse.Namespace) -> None:
    from rabtriever.ops import registry, tracking

    tracking.require()
    print("loading the version and asking it a question", file=sys.stderr)
    now, before = registry.rollback(parsed.to)
    print(f"champion is {now} now; {before} is previous, and a second rollback would put it back")


if __name__ == "__main__":
    sys.exit(main())
