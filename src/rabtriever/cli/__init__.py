"""The `rabtriever` command. Imports nothing heavy before it has parsed."""

from rabtriever.cli.main import main

__all__ = ["main"]
