"""The page of the `rabtriever` command, from its argument parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import rabtriever.cli

_INTRODUCTION = """\
# Command line

`rabtriever` searches, inspects and looks after retrievers.
It is there once the environment is active: `source .venv/bin/activate`.
Its exit status is 0 when done, 1 after a failure with one message, and 2 after wrong usage.
`RABTRIEVER_DEBUG=1` shows the traceback of a failure.

Training is started by `make run`; see the [quickstart](../quickstart.md).
"""


def parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    for name in ("build_parser", "parser", "_parser", "_build_parser"):
        if hasattr(rabtriever.cli, name):
            return getattr(rabtriever.cli, name)()
    raise LookupError("rabtriever.cli has no function that builds its parser; name it here")


def text() -> str:
    """The page."""
    return "\n".join([_INTRODUCTION, *(line for words, part in commands(parser()) for line in _command(words, part))])


def commands(part: argparse.ArgumentParser, words: str = "rabtriever") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """A parser and those of its sub-commands, each after the words that lead to it."""
    yield words, part
    for group in (action for action in part._actions if isinstance(action, argparse._SubParsersAction)):
        for name, inner in group.choices.items():
            yield from commands(inner, f"{words} {name}")


def helps(part: argparse.ArgumentParser) -> dict[str, str]:
    """The one line that each sub-command of a parser has in its help."""
    groups = (action for action in part._actions if isinstance(action, argparse._SubParsersAction))
    return {choice.dest: choice.help or "" for group in groups for choice in group._choices_actions}


def _command(words: str, part: argparse.ArgumentParser) -> list[str]:
    own = [action for action in part._actions if not isinstance(action, argparse._HelpAction)]
    groups = [action for action in own if isinstance(action, argparse._SubParsersAction)]
    options = [action for action in own if action not in groups and action.help is not argparse.SUPPRESS]
    lines = [] if words == "rabtriever" else [f"## `{words}`", ""]
    lines += [part.description.strip(), ""] if part.description else []
    if not groups:
        lines += ["```text", " ".join([words, *map(_usage, options)]), "```", ""]
    if options:
        lines += ["| argument | meaning |", "|---|---|", *(_row(part, action) for action in options), ""]
    if groups:
        lines += ["| command | does |", "|---|---|"]
        lines += [f"| `{words} {name}` | {_cell(said)} |" for name, said in helps(part).items()] + [""]
    return lines + ([part.epilog.strip(), ""] if part.epilog else [])


def _usage(action: argparse.Action) -> str:
    name = action.metavar or (action.dest.upper() if action.option_strings else action.dest)
    if isinstance(name, tuple):
        name = " ".join(name)
    if not action.option_strings:
        return {"?": f"[{name}]", "*": f"[{name} ...]", "+": f"{name} [{name} ...]"}.get(str(action.nargs), name)
    shown = action.option_strings[0] + ("" if action.nargs == 0 else f" {name}")
    return shown if action.required else f"[{shown}]"


def _row(part: argparse.ArgumentParser, action: argparse.Action) -> str:
    name = ", ".join(action.option_strings) or action.metavar or action.dest
    said = part._get_formatter()._expand_help(action) if action.help else ""
    return f"| `{name}` | {_cell(said)} |"


def _cell(said: str) -> str:
    return " ".join(said.split()).replace("|", "\\|")
