"""`rabtriever report`: the page of the server as one file that opens in any browser, without a server."""

from __future__ import annotations

import argparse
from pathlib import Path

from rabtriever.cli.opening import told_when_slow


def report(parsed: argparse.Namespace) -> None:
    """Writes the page of the finished run in the working folder.

    Raises:
        FileNotFoundError: there is no finished run.
        FileExistsError: the file is there and is not a page that this command wrote.
    """
    from rabtriever.core.artifacts import atomic_write
    from rabtriever.server.project import NothingHere, Project
    from rabtriever.server.static_page import page

    target = Path(parsed.file)
    _check(target)
    try:
        with told_when_slow("reading the reports and the registry"):
            text = page(Project())
    except NothingHere as error:
        raise FileNotFoundError(str(error)) from error
    with atomic_write(target) as file:
        file.write(text)
    print(f"{target} is written ({len(text.encode()) / 1e6:.1f} MB); open it in a browser")


def _check(target: Path) -> None:
    if target.is_dir():
        raise FileExistsError(f"{target} is a folder, expected a file; name one, such as {target / 'report.html'}")
    if target.exists() and b'<meta name="generator" content="rabtriever">' not in target.read_bytes()[:4096]:
        raise FileExistsError(f"{target} is there and is not a page of rabtriever; name another file")
