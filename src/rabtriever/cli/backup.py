"""`rabtriever backup` and `rabtriever restore`: the project's state in one file, and back."""

from __future__ import annotations

import argparse

from rabtriever.cli.opening import told_when_slow


def save(parsed: argparse.Namespace) -> None:
    """Writes a backup of the project in the working folder."""
    from rabtriever.ops.backup import backup

    with told_when_slow(f"writing {parsed.file}"):
        count = backup(parsed.file, parsed.force)
    print(f"{parsed.file} holds {count:,} files: the store, settings, dvc.lock, the retriever and its reports")


def restore(parsed: argparse.Namespace) -> None:
    """Puts a backup into the working folder."""
    from rabtriever.ops.backup import restore as put_back

    with told_when_slow(f"reading {parsed.file}"):
        count = put_back(parsed.file, parsed.force)
    print(f"{count:,} files of {parsed.file} are in place; rabtriever models list shows the versions")
