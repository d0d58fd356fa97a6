"""Words in, exit status out: parses, runs one command, and turns errors into one message."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from rabtriever.cli.parser import build_parser
from rabtriever.ops.store_errors import BRIEFLY

# which extra brings a package that the base install lacks
_EXTRAS = {
    **dict.fromkeys(("fastapi", "starlette", "uvicorn", "prometheus_client"), "serve"),
    **dict.fromkeys(("mlflow", "prefect", "dvc", "rich", "filelock"), "ops"),
    **dict.fromkeys(
        ("great_expectations", "pandas", "ir_measures", "lightning", "peft", "bm25s", "matplotlib"), "train"
    ),
}
# before any library that asks for them is imported
_SWITCHES = {
    "DO_NOT_TRACK": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    **BRIEFLY,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: words after the program's name; those of the process by default.

    Returns:
        exit status: 0 done, 1 failed with one message on stderr, 2 wrong usage.
    """
    parsed = build_parser().parse_args(arguments)
    for name, value in _SWITCHES.items():
        os.environ.setdefault(name, value)
    from rabtriever.core.artifacts import ArtifactMismatchError
    from rabtriever.ops.terminal import lines
    from rabtriever.ops.tracking import store_errors

    try:
        with store_errors():
            parsed.run(parsed)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, ArtifactMismatchError, ModuleNotFoundError) as error:
        if os.environ.get("RABTRIEVER_DEBUG"):
            raise
        print(f"rabtriever {_command(parsed)}: {lines(_told(error))}", file=sys.stderr)
        return 1
    return 0


def _command(parsed: argparse.Namespace) -> str:
    return " ".join(filter(None, (parsed.command, getattr(parsed, "action", None))))


def _told(error: Exception) -> str:
    """The message of an error; of a package that is not installed, with what installs it."""
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if package not in _EXTRAS or "install" in str(error):
        return str(error)
    return f"this needs {package}, which is not installed; run pip install 'rabtriever[{_EXTRAS[package]}]'"
