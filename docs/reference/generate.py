"""Writes settings.md, cli.md and api.md beside this file from the code: `python docs/reference/generate.py`.

With `--check` nothing is written, and the exit status is 1 where a page is not what the code says.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import api_page  # noqa: E402
import cli_page  # noqa: E402
import settings_page  # noqa: E402

NOTE = "<!-- written by docs/reference/generate.py; edit the code, not this page -->\n\n"


def pages() -> dict[str, str]:
    """The generated pages by file name, as the code is now."""
    written = {"settings.md": settings_page.text(), "cli.md": cli_page.text(), "api.md": api_page.text()}
    return {name: NOTE + text.rstrip() + "\n" for name, text in written.items()}


def stale() -> list[str]:
    """Names of the pages that differ from what the code says."""
    found = {path.name: path.read_text(encoding="utf-8") for path in HERE.glob("*.md")}
    return [name for name, text in pages().items() if found.get(name) != text]


def main() -> int:
    """Writes the pages that have changed, or tells which have."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a page is stale")
    check, wrong, now = parser.parse_args().check, stale(), pages()
    for name in wrong:
        if not check:
            (HERE / name).write_text(now[name], encoding="utf-8")
        print(f"{'stale' if check else 'wrote'}: docs/reference/{name}")
    return int(check and bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
