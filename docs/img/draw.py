"""Draws the pictures of the documentation: how-it-works.svg, stages.svg and differences.svg, beside this file.

`python docs/img/draw.py` writes all three. The pictures follow the reader's light or dark theme, use no font from
elsewhere, and tell ahead from behind by place, shape and colour (blue and orange, safe for red-green blindness).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
STYLE = """
text { font-family: system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; font-size: 13px; fill: #1f2328 }
.paper { fill: #ffffff; stroke: #d0d7de }
.title { font-size: 17px; font-weight: 600 }
.head { font-size: 14px; font-weight: 600 }
.small, .axis { font-size: 12px; fill: #57606a }
.box { fill: #f6f8fa; stroke: #8c959f }
.panel { fill: none; stroke: #d0d7de }
.model { fill: #ddf0fb; stroke: #0072b2 }
.learned { fill: #fdebd9; stroke: #d55e00 }
.arrow { stroke: #57606a; stroke-width: 1.5; fill: none; marker-end: url(#tip) }
.dashed { stroke: #d55e00; stroke-width: 1.5; fill: none; stroke-dasharray: 5 4; marker-end: url(#tip) }
.tip { fill: #57606a }
.zero { stroke: #57606a; stroke-width: 1.2 }
.grid { stroke: #eaeef2 }
.ahead, .behind, .tied { stroke-width: 2 }
.ahead { stroke: #0072b2; fill: #0072b2 }
.behind { stroke: #d55e00; fill: #d55e00 }
.tied { stroke: #6e7781; fill: #ffffff }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .paper { fill: #0d1117; stroke: #30363d }
  .small, .axis { fill: #9da7b3 }
  .box { fill: #161b22; stroke: #6e7681 }
  .panel { stroke: #30363d }
  .model { fill: #0b2f45; stroke: #56b4e9 }
  .learned { fill: #45260d; stroke: #e69f00 }
  .arrow { stroke: #9da7b3 }
  .dashed { stroke: #e69f00 }
  .tip { fill: #9da7b3 }
  .zero { stroke: #9da7b3 }
  .grid { stroke: #21262d }
  .ahead { stroke: #56b4e9; fill: #56b4e9 }
  .behind { stroke: #e69f00; fill: #e69f00 }
  .tied { stroke: #8b949e; fill: #0d1117 }
}
"""


class Drawing:
    """The elements of one SVG picture, drawn in the order in which they are added."""

    def __init__(self, width: int, height: int, title: str, description: str) -> None:
        self.width, self.height, self.title, self.description = width, height, title, description
        self._parts: list[str] = []
        self.text(24, 32, title, "title")

    def text(self, x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> None:
        """One line of words whose baseline is at y."""
        named = f' class="{kind}"' if kind else ""
        self._parts.append(f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{named}>{escape(words)}</text>')

    def box(
        self, x: float, y: float, width: float, height: float, lines: Sequence[str] = (), kind: str = "box"
    ) -> None:
        """A rounded rectangle with lines of words in its middle; the first line is bold where there are several."""
        self._parts.append(f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" class="{kind}"/>')
        first = y + height / 2 + 5 - 9 * (len(lines) - 1)
        for number, line in enumerate(lines):
            style = "head" if len(lines) > 1 and number == 0 else "small" if number else ""
            self.text(x + width / 2, first + 18 * number, line, style, "middle")

    def line(self, points: Iterable[tuple[float, float]], kind: str = "arrow") -> None:
        """A line through points; an arrow with a tip at its end unless another kind is named."""
        path = " L ".join(f"{x:g} {y:g}" for x, y in points)
        self._parts.append(f'<path d="M {path}" class="{kind}"/>')

    def shape(self, element: str) -> None:
        """Any other SVG element."""
        self._parts.append(element)

    def render(self) -> str:
        """The whole file."""
        marker = (
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto-start-reverse"><path d="M 0 0 L 8 4 L 0 8 z" class="tip"/></marker></defs>'
        )
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            f'width="{self.width}" height="{self.height}" role="img" aria-labelledby="title description">'
        )
        return "\n".join(
            [
                head,
                f'<title id="title">{escape(self.title)}</title>',
                f'<desc id="description">{escape(self.description)}</desc>',
                f"<style>{STYLE}</style>",
                marker,
                f'<rect x="0.5" y="0.5" width="{self.width - 1}" height="{self.height - 1}" rx="10" class="paper"/>',
                *self._parts,
                "</svg>\n",
            ]
        )


def how_it_works() -> str:
    """Teacher and student side by side, and what the student learns from the teacher."""
    draw = Drawing(
        920,
        436,
        "The teacher reads every pair. The student reads each side once.",
        "Left: the teacher, a language model, reads the document, then the query, and its LM head answers yes or no. "
        "Right: the student reads query and document apart with the same frozen model; a predictor rebuilds the "
        "teacher's state from the two, and the same LM head answers.",
    )
    draw.box(24, 52, 340, 360, kind="panel")
    draw.text(44, 78, "Teacher: a reranker", "head")
    draw.text(44, 98, "one language-model call per query and document", "small")
    draw.box(44, 116, 130, 40, ["document"])
    draw.box(214, 116, 130, 40, ["then the query"])
    draw.line([(174, 136), (212, 136)])
    draw.box(44, 186, 300, 48, ["language model", "trained on your judgements"], "model")
    draw.line([(109, 156), (109, 184)])
    draw.line([(279, 156), (279, 184)])
    draw.box(104, 264, 180, 40, ["state after both"])
    draw.line([(194, 234), (194, 262)])
    draw.box(104, 330, 180, 36, ["LM head"], "model")
    draw.line([(194, 304), (194, 328)])
    draw.line([(194, 366), (194, 384)])
    draw.text(194, 400, "yes/no logit + bi-encoder score", anchor="middle")

    draw.box(476, 52, 420, 360, kind="panel")
    draw.text(496, 78, "Student: a retriever", "head")
    draw.text(496, 98, "one or two language-model calls per query in all", "small")
    draw.box(496, 116, 170, 40, ["query alone"])
    draw.box(706, 116, 170, 40, ["document alone"])
    draw.box(496, 186, 170, 48, ["same model, frozen", "once per query"], "model")
    draw.box(706, 186, 170, 48, ["same model, frozen", "once, when indexed"], "model")
    draw.line([(581, 156), (581, 184)])
    draw.line([(791, 156), (791, 184)])
    draw.box(556, 264, 260, 40, ["predictor: rebuilds the teacher's state"], "learned")
    draw.line([(581, 234), (581, 249), (640, 249), (640, 262)])
    draw.line([(791, 234), (791, 249), (732, 249), (732, 262)])
    draw.box(596, 330, 180, 36, ["LM head"], "model")
    draw.line([(686, 304), (686, 328)])
    draw.line([(686, 366), (686, 384)])
    draw.text(686, 400, "yes/no logit + bi-encoder score", anchor="middle")

    draw.line([(284, 284), (554, 284)], "dashed")
    draw.text(420, 274, "learns from", "small", "middle")
    draw.text(420, 302, "MSE, reverse KL", "small", "middle")
    return draw.render()


def stages() -> str:
    """The stages of `make run`, what each leaves behind, and where rounds repeat."""
    draw = Drawing(
        920,
        342,
        "make run goes through ten stages, then the gate",
        "prepare, backbone, train_biencoder, train_teacher and embed_corpus run once. mine and distill run once per "
        "round. build_index, evaluate and register follow, and the gate decides on promotion.",
    )
    first = [
        ("prepare", "data/prepared"),
        ("backbone", "models/backbone"),
        ("train_biencoder", "models/biencoder"),
        ("train_teacher", "models/teacher"),
        ("embed_corpus", "data/embeddings"),
    ]
    for place, (name, output) in enumerate(first):
        draw.box(24 + 178 * place, 56, 158, 54, [name, output])
        if place:
            draw.line([(4 + 178 * place, 83), (22 + 178 * place, 83)])
    draw.line([(815, 110), (815, 132), (119, 132), (119, 182)])
    draw.box(24, 148, 472, 112, kind="panel")
    draw.text(40, 250, "once per round; round 1 mines with the student of round 0", "small")
    draw.box(40, 184, 200, 50, ["mine", "data/candidates/ROUND"], "learned")
    draw.box(280, 184, 200, 50, ["distill", "models/student/ROUND"], "learned")
    draw.line([(240, 209), (278, 209)])
    draw.line([(380, 184), (380, 164), (161, 164), (161, 182)])
    second = [("build_index", "models/retriever", 518), ("evaluate", "reports/", 672), ("register", "mlruns/", 788)]
    widths = (132, 94, 108)
    for (name, output, x), width in zip(second, widths, strict=True):
        draw.box(x, 184, width, 50, [name, output])
    draw.line([(480, 209), (516, 209)])
    draw.line([(650, 209), (670, 209)])
    draw.line([(766, 209), (786, 209)])
    draw.box(788, 272, 108, 50, ["gate", "alias champion"], "model")
    draw.line([(842, 234), (842, 270)])
    draw.text(24, 292, "Each box is a DVC stage: it runs again only when its code, settings or inputs change.", "small")
    draw.text(24, 312, "The gate is no stage: it compares the new retriever with the one in service.", "small")
    return draw.render()


def differences(title: str, note: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[dict]]]) -> str:
    """A panel per rival: the student's nDCG@10 less the rival's on every set, with its interval.

    Args:
        title: the message.
        note: the line below the panels.
        columns: title of each panel.
        rows: name of each set, and for each panel a mapping of `difference`, `low` and `high`, in points.
    """
    left, top, gap, row_height = 190, 92, 18, 22
    width = (920 - left - 24 - gap * (len(columns) - 1)) / len(columns)
    low, high = -7, 14
    bottom = top + row_height * len(rows)
    draw = Drawing(920, bottom + 76, title, note)

    def place(panel: int, value: float) -> float:
        return left + panel * (width + gap) + width * (min(max(value, low), high) - low) / (high - low)

    for panel, column in enumerate(columns):
        for number, line in enumerate(column.split("\n")):
            draw.text(place(panel, 0), 62 + 16 * number, line, "head" if not number else "small", "middle")
        for tick in range(-5, high + 1, 5):
            draw.line([(place(panel, tick), top), (place(panel, tick), bottom)], "zero" if tick == 0 else "grid")
            draw.text(place(panel, tick), bottom + 16, f"{tick:+d}" if tick else "0", "axis", "middle")
    for number, (name, values) in enumerate(rows):
        y = top + row_height * (number + 0.5)
        draw.text(left - 12, y + 4, name, anchor="end")
        for panel, value in enumerate(values):
            kind = "ahead" if value["low"] > 0 else "behind" if value["high"] < 0 else "tied"
            draw.line([(place(panel, value["low"]), y), (place(panel, value["high"]), y)], f"{kind}")
            x = place(panel, value["difference"])
            if kind == "tied":
                draw.shape(f'<circle cx="{x:g}" cy="{y:g}" r="4" class="tied"/>')
            else:
                draw.shape(f'<circle cx="{x:g}" cy="{y:g}" r="4.5" class="{kind}"/>')
    draw.text(24, bottom + 38, "points of nDCG@10, student less rival, with 95 % interval", "small")
    x = 420
    for kind, words in (("ahead", "student ahead"), ("tied", "no clear difference"), ("behind", "student behind")):
        draw.shape(f'<circle cx="{x}" cy="{bottom + 34}" r="4.5" class="{kind}"/>')
        draw.text(x + 9, bottom + 38, words, "small")
        x += 30 + 6 * len(words)
    draw.text(24, bottom + 60, note, "small")
    return draw.render()


def pictures() -> dict[str, str]:
    """File name and content of every picture."""
    sys.path.insert(0, str(FOLDER.parent))
    try:
        from update_results import difference_picture
    finally:
        sys.path.pop(0)
    return {"how-it-works.svg": how_it_works(), "stages.svg": stages(), "differences.svg": difference_picture()}


def main() -> None:
    """Writes every picture."""
    for name, content in pictures().items():
        (FOLDER / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
