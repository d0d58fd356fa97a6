"""Checks a command of a page without running it: does the program know it?"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shlex
from collections.abc import Callable
from pathlib import Path

from tests.closure import ROOT

_PLAIN = {"git", "curl", "source", ".", "export", "cd", "cp", "ls", "pip"}  # nothing of ours to check
_FOLDERS = {"dvc": ("commands",), "prefect": ("cli",), "mlflow": ("cli", "models", "server")}  # of their commands
_ASSIGNMENT = re.compile(r"[A-Za-z_]+=.*")


def commands(text: str) -> list[list[str]]:
    """The words of each command of a block, without variables set before it and without redirections."""
    found = []
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word in (";", "&", "&&", "||", "|"):
                while words and _ASSIGNMENT.fullmatch(words[0]):
                    words = words[1:]
                found += [words] if words else []
                words = []
            else:
                words.append(word)
    return [words[: words.index(">")] if ">" in words else words for words in found]


def fault(words: list[str]) -> str | None:
    """What is wrong with a command, None when it is known."""
    program, rest = words[0], words[1:]
    if program in _PLAIN:
        return None
    checks: dict[str, Callable[[list[str]], str | None]] = {
        "make": _make,
        "python": _python,
        "rabtriever": _rabtriever,
        "docker": _docker,
    }
    if program in checks:
        return checks[program](rest)
    return _third(program, rest) if program in _FOLDERS else f"{program} is not a program that pages may name"


def _make(words: list[str]) -> str | None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    variables = set(re.findall(r"^([A-Z]+) \?=", makefile, re.MULTILINE))
    for word in words:
        name = word.split("=")[0]
        if name not in (variables if "=" in word else targets):
            return f"the Makefile has no {name}"
    return None


def _python(words: list[str]) -> str | None:
    if words[:1] == ["-m"]:
        module = words[1]
        own = (ROOT / (module.replace(".", "/") + ".py")).is_file()
        return None if own or importlib.util.find_spec(module.split(".")[0]) else f"no module {module}"
    path = next((word for word in words if word.endswith(".py")), "")
    return None if (ROOT / path).is_file() else f"no script {path}"


def _rabtriever(words: list[str]) -> str | None:
    from rabtriever.cli.parser import build_parser

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            build_parser().parse_args(words)
    except SystemExit as end:
        return said.getvalue().strip().splitlines()[-1] if end.code else None
    return None


def _docker(words: list[str]) -> str | None:
    """Whether a target or a service is there, and knows what it is to run."""
    if words[0] == "build":
        target = words[words.index("--target") + 1]
        return None if f" AS {target}\n" in (ROOT / "Dockerfile").read_text() else f"the Dockerfile has no {target}"
    if words[:2] == ["compose", "exec"]:
        known = f"\n  {words[2]}:\n" in (ROOT / "compose.yaml").read_text()
        return fault(words[3:]) if known else f"compose.yaml has no {words[2]}"
    return None


def _third(program: str, words: list[str]) -> str | None:
    """Whether the sub-commands stand in the program's own code, which is read and not imported: that takes seconds."""
    spec = importlib.util.find_spec(program)
    assert spec is not None and spec.origin is not None, program
    files = [path for folder in _FOLDERS[program] for path in (Path(spec.origin).parent / folder).rglob("*.py")]
    names = {path.stem.replace("_", "-") for path in files}
    names |= {name for path in files for name in re.findall(r"\"([a-z-]+)\"", path.read_text(encoding="utf-8"))}
    depth = 1 if program == "dvc" else 2
    wanted = [word for word in words if not word.startswith("-")][:depth]
    unknown = [word for word in wanted if re.fullmatch(r"[a-z-]+", word) and word not in names]
    return f"{program} has no command {unknown[0]}" if unknown else None
