"""The pages of the project as tests see them: their prose, links, and blocks of code with what stands around them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.closure import ROOT

GENERATED = {"docs/reference/settings.md", "docs/reference/cli.md", "docs/reference/api.md"}
NOTEBOOK = ("research/archive-0.1/log.md", "research/archive-0.1/method.md")  # kept as it was written
_FENCE = re.compile(r"^(?P<mark>```+|~~~+|:::+)(?P<kind>[^\n]*)\n(?P<text>.*?)^(?P=mark)\s*$", re.DOTALL | re.MULTILINE)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_NOT_RUN = re.compile(r"<!-- not run: [^>]+ -->\s*\Z")


@dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Attributes:
        page: the file it stands in.
        line: number of its first line there.
        kind: language after the fence.
        text: its lines.
        output: the `text` block right below it, None without one.
        runs: whether no comment above says that it is not run.
    """

    page: Path
    line: int
    kind: str
    text: str
    output: str | None
    runs: bool

    @property
    def where(self) -> str:
        """File and line, for messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages(generated: bool = True) -> list[Path]:
    """README, the papers of the project and every page of docs/; the lab notebook is not among them."""
    found = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
    below = sorted((ROOT / "docs").rglob("*.md"))
    shown = [path for path in below if not {"_build", "site"} & set(path.relative_to(ROOT).parts)]
    return found + [path for path in shown if generated or path.relative_to(ROOT).as_posix() not in GENERATED]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    fences = list(_FENCE.finditer(text))
    found = []
    for number, fence in enumerate(fences):
        after = fences[number + 1] if number + 1 < len(fences) else None
        near = after is not None and not text[fence.end() : after.start()].strip()
        output = after["text"] if after is not None and near and after["kind"].strip() == "text" else None
        line = text.count("\n", 0, fence.start()) + 2
        runs = not _NOT_RUN.search(text[: fence.start()])
        found.append(Block(page, line, fence["kind"].strip(), fence["text"], output, runs))
    return found


def sentences(text: str) -> list[str]:
    """The sentences of a page's prose, split at . ! ? and colons: no code, tables, headings or comments."""
    text = _COMMENT.sub("", _FENCE.sub("\n\n", text))
    lines = [line for line in text.splitlines() if not re.match(r"\s*(\||#|\[[^\]]+\]:)", line)]
    text = "\n".join(line if line.strip() else "\n" for line in lines)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`[^`]+`", "code", text)
    items = re.split(r"\n\s*\n|\n\s*(?:[-*+]|\d+\.)\s+", "\n" + text)
    return [part.strip() for item in items for part in re.split(r"[.!?:](?=[\s\"')*_]|\Z)", " ".join(item.split()))]


def links(text: str) -> list[str]:
    """Targets of the links and pictures of a page, those of other hosts left out."""
    text = re.sub(r"`[^`\n]*`", "", _FENCE.sub("", text))
    found = re.findall(r"\]\(([^()\s]+)\)", text) + re.findall(r"(?:src|href)=\"([^\"]+)\"", text)
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """Names that links to a heading of a page have."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = (match.group(1) for match in re.finditer(r"^#+\s+(.*?)\s*$", text, re.MULTILINE))
    return {re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-") for heading in headings}
