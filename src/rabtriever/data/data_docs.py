"""The data contract and its outcome as a static site that needs no network (Great Expectations' Data Docs)."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from rabtriever.core.artifacts import atomic_folder
from rabtriever.data.beir_io import Dataset
from rabtriever.data.contract import CONTRACT, tables_of, validate

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
        results = validate(tables_of(dataset), site=_site_config(temporary))
        for page in temporary.rglob("*.html"):
            page.write_text(_offline(page.read_text(encoding="utf-8")), encoding="utf-8")
        (temporary / "index.html").write_text(_start_page(results, temporary), encoding="utf-8")
    return Path(folder) / "index.html"


def _site_config(site: Path) -> dict[str, Any]:
    return {
        "class_name": "SiteBuilder",
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(site.resolve())},
    }


def _offline(page: str) -> str:
    """A page that fetches nothing from other hosts, with enough style of its own to be readable."""
    page = re.sub(r"<script[^>]*\bsrc=[\"']?https?://[^>]*>\s*</script>", "", page)
    page = re.sub(r"<(?:link|img)[^>]*\b(?:href|src)=[\"']?https?://[^>]*>", "", page)
    return page.replace("</head>", _STYLE + "</head>", 1)


def _start_page(results: list[dict[str, Any]], site: Path) -> str:
    """A plain start page: the one of Great Expectations fills its list by a script of another host."""
    rows = []
    for one, result in zip(CONTRACT, results, strict=True):
        page = next((site / "validations" / one.table).rglob("*.html")).relative_to(site).as_posix()
        outcome = "met" if result["success"] else f"broken by {result['unexpected']}"
        plain = html.escape(one.plain)
        rows.append(f"<tr><td><a href='{page}'>{plain}</a></td><td>{outcome}</td><td>{result['rows']}</td></tr>")
    head = f"<head><meta charset='utf-8'><title>Data contract</title>{_STYLE}</head>"
    titles = "<tr><th>Expectation</th><th>Outcome</th><th>Rows</th></tr>"
    return (
        f"<!doctype html><html>{head}<body><h1>Data contract</h1><table>{titles}{''.join(rows)}</table></body></html>\n"
    )
