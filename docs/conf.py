"""How Sphinx builds the site from the Markdown pages of this folder: `make docs`. Needs no network and no import of us.

Pages link to each other, and to files of the repository, with paths relative to themselves, so that they read well on
a code host too. Three things are changed on the way into the site: pages that live elsewhere in the repository are
taken in, links to them lead there, and a link to a folder or to code becomes its text.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent

project = "rabtriever"
author = "the rabtriever authors"
copyright = "the rabtriever authors, Apache-2.0"
release = version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

extensions = ["myst_parser", "sphinx_copybutton"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
exclude_patterns = ["_build", "evaluation"]
nitpicky = True
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = f"rabtriever {release}"
html_show_sourcelink = html_copy_source = False
html_theme_options = {
    "light_css_variables": {"font-stack": "sans-serif", "font-stack--monospace": "monospace"},
    "dark_css_variables": {"font-stack": "sans-serif", "font-stack--monospace": "monospace"},
}

# pages of the site that are written elsewhere in the repository
TAKEN_IN = {
    "site/log": "research/archive-0.1/log.md",
    "site/method": "research/archive-0.1/method.md",
    "site/changelog": "CHANGELOG.md",
    "site/contributing": "CONTRIBUTING.md",
    "site/household": "data/household/README.md",
}
FRONT = "README.md"  # what it says is on the site's first pages
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\[\]]*)\]\((?P<target>[^()\s]+)\)")
FENCED = re.compile(r"^(```|~~~).*?^\1\s*$", re.DOTALL | re.MULTILINE)


def setup(app) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", lambda app, name, source: source.__setitem__(0, page(name, source[0])))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def page(name: str, text: str) -> str:
    """The Markdown of a page of the site, its links as they have to be there.

    Args:
        name: Path of the page below docs/, without its ending.
        text: What the file has; of a page that is taken in, it is replaced.
    """
    origin = ROOT / TAKEN_IN[name] if name in TAKEN_IN else DOCS / f"{name}.md"
    text = origin.read_text(encoding="utf-8") if name in TAKEN_IN else text
    place = (DOCS / name).parent
    parts, end = [], 0
    for fence in FENCED.finditer(text):
        parts += [LINK.sub(lambda match: _link(match, origin, place), text[end : fence.start()]), fence.group()]
        end = fence.end()
    return "".join(parts) + LINK.sub(lambda match: _link(match, origin, place), text[end:])


def _link(match: re.Match[str], origin: Path, place: Path) -> str:
    """One link of a page: `origin` is the file that it stands in, `place` the folder that the page is built for."""
    target, _, anchor = match["target"].partition("#")
    if not target or re.match(r"[a-z]+:", target):
        return match.group()
    found = Path(os.path.normpath(origin.parent / target))
    pages = {ROOT / path: DOCS / f"{name}.md" for name, path in TAKEN_IN.items()} | {ROOT / FRONT: DOCS / "index.md"}
    found = pages.get(found, found)
    if match["image"] or (found.suffix == ".md" and found.is_relative_to(DOCS)):
        relative = Path(os.path.relpath(found, place)).as_posix()
        return f"{match['image']}[{match['text']}]({relative}{'#' + anchor if anchor else ''})"
    shown = found.relative_to(ROOT).as_posix() if found.is_relative_to(ROOT) else target
    return match["text"] if shown in match["text"] else f"{match['text']} (`{shown}`)"
