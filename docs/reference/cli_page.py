"""The page of the `rabtriever` command, from its argument parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from rabtriever.cli.parser import build_parser

_INTRODUCTION = """\
# Command line

`rabtriever` searches, inspects and looks after retrievers.
It is there once the environment is active: `source .venv/bin/activate`.
Its exit status is 0 when done, 1 after a failure with one message, and 2 after wrong usage.
`RABTRIEVER_DEBUG=1` shows the traceback of a failure.

Training is started by `make run`; see the [quickstart](../quickstart.md).
"""


def text() -> str:
    """The page."""
    return "\n".join(
        [_INTRODUCTION, *(line for words, part in commands(build_parser()) for line in _command(words, part))]
    )


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
        lines += ["```text", _usage(words, part, options), "```", ""]
    if options:
        lines += ["| argument | meaning |", "|---|---|", *(_row(part, action) for action in options), ""]
    if groups:
        lines += ["| command | does |", "|---|---|"]
        lines += [f"| `{words} {name}` | {_cell(said)} |" for name, said in helps(part).items()] + [""]
    return lines + ([part.epilog.strip(), ""] if part.epilog else [])


def _usage(words: str, part: argparse.ArgumentParser, options: list[argparse.Action]) -> str:
    """One line of usage; of options that exclude each other, one is taken."""
    groups = {id(one): group for group in part._mutually_exclusive_groups for one in group._group_actions}
    shown = [words]
    for action in options:
        group = groups.get(id(action))
        if group is None:
            shown.append(_argument(action) if action.required else f"[{_argument(action)}]")
        elif action is group._group_actions[0]:
            choice = " | ".join(_argument(one) for one in group._group_actions)
            shown.append(f"({choice})" if group.required else f"[{choice}]")
    return " ".join(shown)


def _argument(action: argparse.Action) -> str:
    """An option with what it takes, or the name of a word."""
    name = str(action.metavar or (action.dest.upper() if action.option_strings else action.dest))
    if not action.option_strings:
        return f"{name} ..." if action.nargs in ("*", "+") else name
    return action.option_strings[0] + ("" if action.nargs == 0 else f" {name}")


def _row(part: argparse.ArgumentParser, action: argparse.Action) -> str:
    said = part._get_formatter()._expand_help(action) if action.help else ""
    return f"| `{', '.join([*action.option_strings[1:], _argument(action)])}` | {_cell(said)} |"


def _cell(said: str) -> str:
    return " ".join(said.split()).replace("|", "\\|")
