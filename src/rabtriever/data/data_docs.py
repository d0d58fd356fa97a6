"""The data contract and its outcome as a static site without scripts or network (Great Expectations' Data Docs)."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rabtriever.core.artifacts import atomic_folder
from rabtriever.data.beir_io import Dataset
from rabtriever.data.contract import CONTRACT, tables_of, validate

if TYPE_CHECKING:
    import pandas as pd

# What a browser must not do even where a page says so: run scripts, or ask another host.
_POLICY = (
    "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; style-src 'self' 'unsafe-inline' file:; "
    "img-src 'self' file: data:\">"
)
_REMOTE = r"(?:https?:)?//"
_STYLE = "<style>body{font-family:sans-serif;margin:2em}td,th{padding:.2em .6em;text-align:left}</style>"


def build_data_docs(dataset: Dataset, folder: str | Path) -> Path:
    """The start page of a static site that shows the data contract and what it found, also where the data break it.

    Args:
        dataset: The data set to check; it may break the contract.
        folder: Where the site goes; an earlier site there is replaced.

    Raises:
        RuntimeError: If an expectation could not be evaluated.
        NotADirectoryError: If `folder` is a file.
    """
    with atomic_folder(folder) as temporary:
        results = validate(_escaped(tables_of(dataset)), site=_site_config(temporary))
        for kind, change in (("*.html", _offline), ("*.css", _without_remote_images)):
            for file in temporary.rglob(kind):
                file.write_text(change(file.read_text(encoding="utf-8")), encoding="utf-8")
        (temporary / "index.html").write_text(_start_page(results, temporary), encoding="utf-8")
    return Path(folder) / "index.html"


def _site_config(site: Path) -> dict[str, Any]:
    return {
        "class_name": "SiteBuilder",
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(site.resolve())},
    }


def _escaped(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The tables with their texts as HTML, because Great Expectations writes values into its pages as they are."""
    return {
        name: table.map(lambda value: html.escape(value) if isinstance(value, str) else value)
        for name, table in tables.items()
    }


def _offline(page: str) -> str:
    """A page that runs no script and fetches nothing, with enough style of its own to be readable."""
    page = re.sub(r"<script\b.*?</script\s*>", "", page, flags=re.DOTALL | re.IGNORECASE)
    page = re.sub(rf"<(?:link|img)\b[^>]*\b(?:href|src)=[\"']?{_REMOTE}[^>]*>", "", page)
    page = _without_remote_images(page)
    return page.replace("<head>", "<head>" + _POLICY, 1).replace("</head>", _STYLE + "</head>", 1)


def _without_remote_images(style: str) -> str:
    return re.sub(rf"url\(\s*[\"']?{_REMOTE}[^)]*\)", "none", style)


def _start_page(results: list[dict[str, Any]], site: Path) -> str:
    """A plain start page: the one of Great Expectations fills its list by a script of another host."""
    rows = []
    for one, result in zip(CONTRACT, results, strict=True):
        page = next((site / "validations" / one.table).rglob("*.html")).relative_to(site).as_posix()
        outcome = "met" if result["success"] else f"broken by {result['unexpected']}"
        plain = html.escape(one.plain)
        rows.append(f"<tr><td><a href='{page}'>{plain}</a></td><td>{outcome}</td><td>{result['rows']}</td></tr>")
    head = f"<head>{_POLICY}<meta charset='utf-8'><title>Data contract</title>{_STYLE}</head>"
    titles = "<tr><th>Expectation</th><th>Outcome</th><th>Rows</th></tr>"
    return (
        f"<!doctype html><html>{head}<body><h1>Data contract</h1><table>{titles}{''.join(rows)}</table></body></html>\n"
    )
