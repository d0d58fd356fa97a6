"""How a retraining ended: one of five named outcomes with its reason, as a line, a page in Markdown, and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from rabtriever.core.stages import Paths
from rabtriever.ops import tracking
from rabtriever.ops.registry import MODEL


class Outcome(StrEnum):
    """The names under which a retraining ends, in Prefect and in notifications."""

    PROMOTED = "Promoted"
    REFUSED = "Refused"
    NOTHING_TO_DO = "Nothing to do"
    FAILED = "Failed"
    DATA_QUARANTINED = "Data quarantined"


@dataclass(frozen=True)
class Verdict:
    """What a retraining came to.

    Attributes:
        outcome: its name.
        reason: one sentence or more.
        decision: what the gate recorded (`gate.judge`), empty where it decided nothing.
        folder: where data that broke the contract were set aside, with their report.
    """

    outcome: Outcome
    reason: str
    decision: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    @classmethod
    def of(cls, decision: Mapping[str, Any]) -> Verdict:
        """The verdict that a decision of the gate amounts to."""
        outcome = Outcome.PROMOTED if decision["promoted"] else Outcome.REFUSED
        return cls(outcome, f"version {decision['version']}: {decision['reason']}", decision)

    @property
    def line(self) -> str:
        """The verdict in one line."""
        return f"{self.outcome}: {' '.join(self.reason.split())}"

    def message(self) -> dict[str, Any]:
        """The verdict as JSON; `text` is what Slack, Mattermost and others show."""
        interval = self.decision.get("interval")
        return {
            "text": f"retrain: {self.line}",
            "outcome": str(self.outcome),
            "reason": self.reason,
            "version": self.decision.get("version"),
            "champion": self._champion,
            "ndcg_10": self.decision.get("ndcg_10"),
            "champion_ndcg_10": self.decision.get("champion_ndcg_10"),
            "interval": None if interval is None else dict(interval),
            "decided_at": self.decision.get("decided_at"),
            "quarantine": None if self.folder is None else str(self.folder),
        }

    def markdown(self) -> str:
        """The verdict as a page: outcome, reason, the figures that were compared, and where the rest is."""
        parts = [f"## {self.outcome}", _fenced(self.reason) if "\n" in self.reason else self.reason]
        if self.decision:
            rows = ["| | version | nDCG@10 |", "|---|---|---|", *(_row(*cells) for cells in self._compared())]
            parts += ["\n".join(rows), *self._interval()]
        return "\n\n".join([*parts, "\n".join(f"- {place}" for place in self._places())]) + "\n"

    @property
    def _champion(self) -> str | None:
        """The version in service after the decision."""
        return self.decision.get("version" if self.decision.get("promoted") else "champion")

    def _compared(self) -> list[tuple[str, str | None, float | None]]:
        decision, best = self.decision, self.decision.get("best") or {}
        return [
            ("challenger", decision["version"], decision["ndcg_10"]),
            ("champion before", decision["champion"], decision["champion_ndcg_10"]),
            ("best on the same data", best.get("version"), best.get("ndcg_10")),
            ("bi-encoder of the same run", None, decision.get("biencoder_ndcg_10")),
        ]

    def _interval(self) -> list[str]:
        interval = self.decision.get("interval")
        if interval is None:
            return []
        confidence = 100 * self.decision["gate"]["confidence"]
        return [
            f"Challenger minus champion: {interval['mean']:+.2f} points, {confidence:g} % interval "
            f"{interval['low']:+.2f} to {interval['high']:+.2f}."
        ]

    def _places(self) -> list[str]:
        """Links and paths; a link only where something serves it."""
        reports = Paths().reports.resolve()
        places = [f"`{reports / name}`" for name in ("evaluation.json", "promotion.json") if (reports / name).is_file()]
        if self.folder is not None:
            places.append(f"data and report: `{self.folder.resolve()}`")
        version, uri = self.decision.get("version"), tracking.tracking_uri()
        if version and uri.startswith("http"):
            places.append(f"[version {version}]({uri.rstrip('/')}/#/models/{MODEL}/versions/{version})")
        elif version:
            places.append(f"`models:/{MODEL}/{version}` in `{uri}`")
        return places


def _row(name: str, version: str | None, ndcg: float | None) -> str:
    return f"| {name} | {version or '–'} | {'–' if ndcg is None else format(ndcg, '.2f')} |"


def _fenced(text: str) -> str:
    return "````text\n" + text.replace("````", "'''") + "\n````"
