"""The pictures of the evaluation."""

from pathlib import Path
from typing import Any

import pytest

from rabtriever.data.metrics import METRICS
from rabtriever.evaluation.plots import draw_systems


def test_bars_are_of_the_systems_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that nobody has timed end the stage, or bars stand over the name of another system."""
    from matplotlib.axes import Axes

    prices: list[tuple[Any, ...]] = []
    heights: list[list[float]] = []
    barh, bar = Axes.barh, Axes.bar
    monkeypatch.setattr(Axes, "barh", lambda self, *bars, **how: (prices.append(bars), barh(self, *bars, **how))[1])
    # the other one draws with this one, its bars by name
    monkeypatch.setattr(
        Axes, "bar", lambda self, *bars, **how: (bars and heights.append(bars[1]), bar(self, *bars, **how))[1]
    )
    values = {"bm25": 10.0, "student": 30.0, "student_prior": 40.0, "teacher": 50.0}
    systems = {
        name: {**dict.fromkeys(METRICS, value), "ms_per_query": None if name.endswith("_prior") else value}
        for name, value in values.items()
    }
    report = {"dataset": "toy", "num_queries": 2, "num_documents": 8, "systems": systems}
    draw_systems(report, tmp_path / "systems.png")
    assert (tmp_path / "systems.png").read_bytes().startswith(b"\x89PNG")
    assert prices == [(["bm25", "student", "teacher"], [10.0, 30.0, 50.0])]
    assert heights == [[10.0, 30.0, 50.0]] * 4
