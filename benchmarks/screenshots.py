"""Pictures of every view of a running server's page: `python benchmarks/screenshots.py URL FOLDER`.

FILE in the place of URL takes the pages of `rabtriever report`. It needs playwright and a Chromium.
"""

from __future__ import annotations

import argparse
import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDE, NARROW = (1360, 900), (400, 860)
PATIENCE = 180_000  # milliseconds until the teacher has read


def browser() -> str | None:
    """Path of an installed Chromium; None where there is none."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def views(page: Any) -> dict[str, str]:
    """The address of each view, with a query that has judgements and a document that is open."""
    found = page.evaluate(
        """async () => {
          const element = document.getElementById("recorded");
          const recorded = element && JSON.parse(element.textContent);
          const get = async (name) => recorded ? recorded[name] : (await fetch(`page/${name}`)).json();
          return { overview: await get("overview"), losses: await get("losses") };
        }"""
    )
    queries, examples = found["losses"].get("queries", []), found["overview"].get("examples", [])
    worst = min(queries, key=lambda one: one["values"]["student"] - one["values"]["biencoder"], default=None)
    shown = {"search": f"#/search?q={quote(examples[0])}"} if examples else {"search": "#/search"}
    shown["losses"] = "#/losses" + (f"?query={quote(worst['id'])}" if worst else "")
    return {
        **shown,
        **{name: f"#/{name}" for name in ("versions", "data", "cost")},
        "label": shown["search"].replace("search", "label"),
    }


def settled(page: Any) -> None:
    """Waits until no column is busy and no view is being read."""
    page.wait_for_function(
        """() => document.querySelector('.view') && !document.querySelector('[aria-busy=true]')
          && ![...document.querySelectorAll('.note')].some((one) => /^(Reading|Waiting) …/.test(one.textContent))""",
        timeout=PATIENCE,
    )


def take(start: str, folder: Path, schemes: tuple[str, ...] = ("light", "dark")) -> Iterator[Path]:
    """Takes the pictures; gives each file.

    Args:
        start: address of the page.
        folder: where the pictures go.
        schemes: colours that the browser asks for.
    """
    from playwright.sync_api import sync_playwright

    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
        for scheme, (width, height) in [(scheme, size) for scheme in schemes for size in (WIDE, NARROW)]:
            page = opened.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.goto(start)
            settled(page)
            for name, address in views(page).items():
                page.goto(start + address)
                settled(page)
                if name == "search" and (hit := page.query_selector(".column.student .hit")):
                    hit.click()
                    settled(page)
                    page.wait_for_timeout(500)
                path = folder / f"{name}-{scheme}-{width}.png"
                page.screenshot(path=path, full_page=True)
                yield path
            page.close()
        opened.close()


def main() -> None:
    """Takes all pictures and prints their names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("start", help="address of a running server, or a file of rabtriever report")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--scheme", action="append", choices=("light", "dark"), help="one of the two (default: both)")
    parsed = parser.parse_args()
    if browser() is None:
        raise SystemExit(f"there is no browser; expected one of {', '.join(BROWSERS)}; apt-get install chromium")
    start = parsed.start if "://" in parsed.start else Path(parsed.start).resolve().as_uri()
    if start.startswith("http"):
        with urllib.request.urlopen(f"{start.rstrip('/')}/readyz", timeout=10) as answer:
            print(json.load(answer))
    for path in take(start, parsed.folder, tuple(parsed.scheme or ("light", "dark"))):
        print(path)


if __name__ == "__main__":
    main()
