"""Draws the pictures of the documentation: how-it-works.svg and stages.svg, beside this file.

`python docs/img/draw.py` writes both. The pictures follow the reader's light or dark theme, and use no font from
elsewhere. Their colours, blue and orange, are safe for red-green blindness.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
STYLE = """
text { font-family: system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; font-size: 13px; fill: #1f2328 }
.paper { fill: #ffffff; stroke: #d0d7de }
.title { font-size: 17px; font-weight: 600 }
.head { font-size: 14px; font-weight: 600 }
.small { font-size: 12px; fill: #57606a }
.box { fill: #f6f8fa; stroke: #8c959f }
.panel { fill: none; stroke: #d0d7de }
.model { fill: #ddf0fb; stroke: #0072b2 }
.learned { fill: #fdebd9; stroke: #d55e00 }
.arrow { stroke: #57606a; stroke-width: 1.5; fill: none; marker-end: url(#tip) }
.dashed { stroke: #d55e00; stroke-width: 1.5; fill: none; stroke-dasharray: 5 4; marker-end: url(#tip) }
.tip { fill: #57606a }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .paper { fill: #0d1117; stroke: #30363d }
  .small { fill: #9da7b3 }
  .box { fill: #161b22; stroke: #6e7681 }
  .panel { stroke: #30363d }
  .model { fill: #0b2f45; stroke: #56b4e9 }
  .learned { fill: #45260d; stroke: #e69f00 }
  .arrow { stroke: #9da7b3 }
  .dashed { stroke: #e69f00 }
  .tip { fill: #9da7b3 }
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
    draw.text(194, 400, "yes/no logit + s · cosine", anchor="middle")

    draw.box(476, 52, 420, 360, kind="panel")
    draw.text(496, 78, "Student: a retriever", "head")
    draw.text(496, 98, "one language-model call per query in all", "small")
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
    draw.text(686, 400, "yes/no logit + s · cosine", anchor="middle")

    draw.line([(284, 284), (554, 284)], "dashed")
    draw.text(420, 274, "learns from", "small", "middle")
    draw.text(420, 302, "MSE, reverse KL", "small", "middle")
    return draw.render()


def stages() -> str:
    """The stages of `make run`, and what each leaves behind."""
    draw = Drawing(
        920,
        256,
        "make run goes through eight stages, then the gate",
        "prepare, train_biencoder, train_teacher, mine, distill, build_index, evaluate and register follow each other. "
        "The gate decides on promotion.",
    )
    first = [
        ("prepare", "data/prepared"),
        ("train_biencoder", "models/biencoder"),
        ("train_teacher", "models/teacher"),
        ("mine", "data/candidates"),
    ]
    second = [
        ("distill", "models/student"),
        ("build_index", "models/retriever"),
        ("evaluate", "reports/"),
        ("register", "mlruns/"),
    ]
    for place, (name, output) in enumerate(first):
        draw.box(24 + 178 * place, 56, 158, 54, [name, output], "learned" if name == "mine" else "box")
        if place:
            draw.line([(4 + 178 * place, 83), (22 + 178 * place, 83)])
    draw.line([(637, 110), (637, 128), (103, 128), (103, 144)])
    for place, (name, output) in enumerate(second):
        draw.box(24 + 178 * place, 146, 158, 54, [name, output], "learned" if name == "distill" else "box")
        draw.line([(182 + 178 * place, 173), (200 + 178 * place, 173)])
    draw.box(736, 146, 160, 54, ["gate", "alias champion"], "model")
    draw.text(24, 222, "Each box is a DVC stage: it runs again only when its code, settings or inputs change.", "small")
    draw.text(24, 240, "The gate is no stage: it compares the new retriever with the one in service.", "small")
    return draw.render()


def pictures() -> dict[str, str]:
    """File name and content of every picture."""
    return {"how-it-works.svg": how_it_works(), "stages.svg": stages()}


def main() -> None:
    """Writes every picture."""
    for name, content in pictures().items():
        (FOLDER / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
