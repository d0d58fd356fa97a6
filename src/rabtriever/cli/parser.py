"""The words that the command takes."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from typing import Any

_MODEL = "champion, previous, a version number, a models:/ URI, or a retriever folder (default: %(default)s)"


def build_parser() -> argparse.ArgumentParser:
    """The parser; `run` of what it returns carries the command out."""
    parser = argparse.ArgumentParser(prog="rabtriever", description="Use the retrievers this project builds.")
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_search(commands)
    explain = commands.add_parser("explain", help="show the parts of one document's score")
    explain.add_argument("query", help="what is wanted, in your own words")
    explain.add_argument("document", help="the document's id")
    explain.add_argument("--json", action="store_true", help="print one JSON object")
    _add_model(explain)
    explain.set_defaults(run=_later("search", "explain"))
    _add_models(commands)
    rollback = commands.add_parser("rollback", help="put the previous champion back into service")
    rollback.add_argument(
        "--to", metavar="VERSION", default="previous", help="a version number in its place (default: %(default)s)"
    )
    rollback.set_defaults(run=_later("models", "rollback"))
    inspect = commands.add_parser("inspect", help="check an artefact folder and show what it was made from")
    inspect.add_argument("folder", help="a folder with a manifest.json, such as models/retriever")
    inspect.set_defaults(run=_later("folders", "inspect"))
    _add_data(commands)
    evaluate = commands.add_parser("evaluate", help="measure a retriever on a data set")
    evaluate.add_argument("folder", help="a folder of BEIR layout, or irds:ID of ir_datasets")
    evaluate.add_argument("--split", default="test", help="name of the judgements (default: %(default)s)")
    evaluate.add_argument("--json", action="store_true", help="print one JSON object")
    _add_model(evaluate)
    evaluate.set_defaults(run=_later("folders", "evaluate"))
    _add_documents(commands)
    _add_serve(commands)
    _add_mcp(commands)
    _add_backup(commands)
    _add_report(commands)
    init = commands.add_parser("init", help="start a new project: settings, pipeline, flows, profiles, example data")
    init.add_argument("folder", help="where it goes")
    init.set_defaults(run=_later("project", "init"))
    return parser


def _add_search(commands: Any) -> None:
    search = commands.add_parser("search", help="rank documents for a query")
    asked = search.add_mutually_exclusive_group(required=True)
    asked.add_argument("query", nargs="?", help="what is wanted, in your own words")
    asked.add_argument("-f", dest="file", metavar="FILE", help='many queries: JSON lines with "_id" and "text"')
    search.add_argument("-k", type=_positive, default=5, help="number of documents (default: %(default)s)")
    _add_model(search)
    form = search.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object per query")
    form.add_argument("--trec", metavar="FILE", help="write a TREC run file")
    search.set_defaults(run=_later("search", "search"))


def _add_models(commands: Any) -> None:
    models = commands.add_parser("models", help="look at the versions in the registry, and choose the champion")
    actions = models.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="list all versions").set_defaults(run=_later("models", "list_versions"))
    show = actions.add_parser("show", help="show what is recorded on a version")
    show.add_argument("version", help="champion, previous or a number")
    show.set_defaults(run=_later("models", "show"))
    compare = actions.add_parser("compare", help="compare the metrics of two versions on the same queries")
    for name in ("first", "second"):
        compare.add_argument(name, help="champion, previous or a number")
    compare.set_defaults(run=_later("models", "compare"))
    promote = actions.add_parser("promote", help="make a version the champion, whatever the gate has decided")
    promote.add_argument("version", help="a number, or previous")
    promote.set_defaults(run=_later("models", "promote"))


def _add_data(commands: Any) -> None:
    data = commands.add_parser("data", help="look at a data set")
    actions = data.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser("check", help="check a folder of BEIR layout against the data contract")
    check.add_argument("folder", help="the folder, or irds:ID of ir_datasets")
    check.set_defaults(run=_later("folders", "check"))


def _add_documents(commands: Any) -> None:
    add = commands.add_parser("add", help="add documents, or replace those of the same id, without training")
    add.add_argument("file", help='JSON lines with "_id", "text", and optionally "title" and "metadata"; - for stdin')
    add.set_defaults(run=_later("documents", "add"))
    remove = commands.add_parser("remove", help="remove documents, without training")
    remove.add_argument("ids", nargs="+", metavar="ID", help="the document's id")
    remove.set_defaults(run=_later("documents", "remove"))
    changes = commands.add_parser("changes", help="print the documents that were added or replaced, as JSON lines")
    changes.set_defaults(run=_later("documents", "changes"))
    for command in (add, remove, changes):
        command.add_argument(
            "--documents", metavar="FILE", help="where changes are kept (default: beside the registry)"
        )


def _add_serve(commands: Any) -> None:
    serve = commands.add_parser("serve", help="answer queries over HTTP, and follow the champion")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    serve.add_argument("--port", type=int, default=8100, help="port; 0 takes a free one (default: %(default)s)")
    _add_model(serve)
    serve.add_argument("--documents", metavar="FILE", help="added and removed documents (default: beside the registry)")
    serve.add_argument(
        "--token-file", metavar="FILE", help="lines NAME:TOKEN or NAME:TOKEN:admin (default: RABTRIEVER_TOKENS)"
    )
    for option, what in (("--cors-origin", "web origin whose pages may ask"), ("--allow-host", "further Host name")):
        serve.add_argument(option, action="append", default=[], metavar="NAME", help=f"{what}; may be repeated")
    serve.add_argument("--log-queries", action="store_true", help="write the texts of queries to the access log")
    serve.add_argument(
        "--set", action="append", default=[], metavar="NAME=NUMBER", help="a limit or interval; may be repeated"
    )
    serve.set_defaults(run=_later("serve", "serve"))


def _add_mcp(commands: Any) -> None:
    mcp = commands.add_parser("mcp", help="give an agent the tools search and rerank, over stdin and stdout (MCP)")
    _add_model(mcp)
    mcp.add_argument("--documents", metavar="FILE", help="added and removed documents (default: beside the registry)")
    mcp.set_defaults(run=_later("mcp", "serve"))


def _add_backup(commands: Any) -> None:
    backup = commands.add_parser("backup", help="save versions, settings and the retriever in one file")
    backup.add_argument("file", help="the zip file to write")
    backup.add_argument("--force", action="store_true", help="replace a file that is there")
    backup.set_defaults(run=_later("backup", "save"))
    restore = commands.add_parser("restore", help="put a backup into this folder")
    restore.add_argument("file", help="a file that rabtriever backup has written")
    restore.add_argument("--force", action="store_true", help="replace what is there and differs")
    restore.set_defaults(run=_later("backup", "restore"))


def _add_report(commands: Any) -> None:
    report = commands.add_parser("report", help="write the page of the last run as one HTML file")
    report.add_argument("file", nargs="?", default="reports/report.html", help="where it goes (default: %(default)s)")
    report.set_defaults(run=_later("report", "report"))


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", default="champion", metavar="MODEL", help=_MODEL)


def _later(module: str, function: str) -> Callable[[argparse.Namespace], None]:
    """A command that is imported when it runs."""

    def run(parsed: argparse.Namespace) -> None:
        getattr(importlib.import_module(f"rabtriever.cli.{module}"), function)(parsed)

    return run


class _Version(argparse.Action):
    """Prints the version; it is looked up only when asked for."""

    def __init__(self, option_strings: list[str], dest: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help="print the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        import rabtriever

        print(f"rabtriever {rabtriever.__version__}")
        parser.exit()


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of documents; give a whole number from 1")
    return value
