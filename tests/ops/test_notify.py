"""Who is told how a retraining ended, and that nothing there can fail it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import yaml

from flows.retrain import retrain
from rabtriever.ops import notify
from rabtriever.ops.verdict import Outcome, Verdict
from tests.closure import ROOT
from tests.docs.pages import blocks

DECISION = {
    "version": "4",
    "promoted": False,
    "reason": "it may be worse",
    "champion": "3",
    "ndcg_10": 79.9,
    "champion_ndcg_10": 82.0,
    "interval": {"mean": -2.1, "low": -3.0, "high": -1.2},
    "best": {"version": "2", "ndcg_10": 83.5},
    "biencoder_ndcg_10": 78.0,
    "gate": {"confidence": 0.95},
    "decided_at": "2026-01-01T03:00:00+00:00",
}


class Hook:
    """A webhook on this machine that answers with the given statuses in turn, the last of them from then on."""

    def __init__(self, *statuses: int) -> None:
        self.statuses, self.received = list(statuses), []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.received.append((self.headers["Content-Type"], json.loads(body)))
                status = hook.statuses.pop(0) if len(hook.statuses) > 1 else hook.statuses[0]
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()

            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                """Says nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook/s3cret"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()


@pytest.fixture
def make_hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes webhooks, each the one that is set; retries follow at once."""
    made: list[Hook] = []
    monkeypatch.setattr(notify, "_PAUSES", (0.0, 0.0))

    def make(*statuses: int) -> Hook:
        made.append(Hook(*statuses))
        monkeypatch.setenv(notify.WEBHOOK, made[-1].url)
        return made[-1]

    yield make
    for hook in made:
        hook.server.shutdown()
        hook.server.server_close()


def test_s02_a_webhook_gets_the_verdict(make_hook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """S02: prevents a refusal that nobody hears of, also where a proxy is set that does not reach this machine."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    hook = make_hook(200)
    notify.tell(Verdict.of(DECISION))
    [(kind, told)] = hook.received
    assert kind == "application/json" and told["text"] == "retrain: Refused: version 4: it may be worse"
    assert (told["outcome"], told["version"], told["champion"]) == ("Refused", "4", "3")
    assert (told["ndcg_10"], told["champion_ndcg_10"]) == (79.9, 82.0)
    assert told["interval"] == {"mean": -2.1, "low": -3.0, "high": -1.2} and told["flow_run"] is None
    notify.tell(Verdict.of({**DECISION, "promoted": True}))
    assert (hook.received[1][1]["outcome"], hook.received[1][1]["champion"]) == ("Promoted", "4")


@pytest.mark.parametrize(
    ("statuses", "attempts", "lost"),
    [((500, 200), 2, False), ((503,), 3, True), ((429, 429, 200), 3, False), ((404,), 1, True), ((302,), 1, True)],
)
def test_s02_attempts_are_bounded(
    make_hook: Any, capsys: pytest.CaptureFixture[str], statuses: tuple[int, ...], attempts: int, lost: bool
) -> None:
    """S02: prevents a message that one hiccup loses, one sent for ever, and one that a redirection swallows."""
    hook = make_hook(*statuses)
    notify.tell(Verdict(Outcome.FAILED, "stage 'index' failed"))
    error = capsys.readouterr().err
    assert len(hook.received) == attempts
    assert ("the notification to http://127.0.0.1 was not sent" in error) is lost and "s3cret" not in error


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/hook", "file:///etc/passwd", "nonsense", "http://[", "https://"])
def test_s02_failing_to_notify_fails_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    """S02: prevents a good retraining that ends as failed because a chat was away, or its address misspelt."""
    monkeypatch.setattr(notify, "_PAUSES", (0.0, 0.0))
    monkeypatch.setenv(notify.WEBHOOK, url)
    notify.tell(Verdict(Outcome.PROMOTED, "better"))
    assert "was not sent" in capsys.readouterr().err


def test_s02_a_failure_is_told_once_and_raised(make_hook: Any) -> None:
    """S02: prevents a failure that is swallowed by telling it, or told by each of two callers."""
    hook = make_hook(200)
    with pytest.raises(ValueError, match="shard 3"), notify.failures_told(), notify.failures_told():
        raise ValueError("shard 3 has 7 vectors")
    with pytest.raises(KeyboardInterrupt), notify.failures_told():
        raise KeyboardInterrupt
    assert [told["text"] for _, told in hook.received] == ["retrain: Failed: shard 3 has 7 vectors"]


def test_s02_the_page_has_figures_interval_reason_and_places(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """S02: prevents an artifact that names a verdict and not what it rests on."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/promotion.json").write_text("{}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example:5000/")
    page = Verdict.of(DECISION).markdown()
    for expected in (
        "## Refused\n\nversion 4: it may be worse\n",
        "| challenger | 4 | 79.90 |",
        "| champion before | 3 | 82.00 |",
        "| best on the same data | 2 | 83.50 |",
        "| bi-encoder of the same run | – | 78.00 |",
        "-2.10 points, 95 % interval -3.00 to -1.20",
        f"`{tmp_path}/reports/promotion.json`",
        "[version 4](http://mlflow.example:5000/#/models/rabtriever/versions/4)",
    ):
        assert expected in page
    first = Verdict.of({**DECISION, "promoted": True, "champion": None, "champion_ndcg_10": None, "interval": None})
    assert "| champion before | – | – |" in first.markdown() and "interval" not in first.markdown()


def test_s02_the_switch_for_what_did_not_run_knows_the_names() -> None:
    """S02: prevents an automation of the docs that Prefect refuses, or that never hears of an end under its name."""
    from prefect.events.schemas.automations import AutomationCore
    from prefect.server.events.schemas.automations import EventTrigger

    [block] = [block for block in blocks(ROOT / "docs/guides/alerts.md") if block.kind == "yaml"]
    automation = AutomationCore.model_validate(yaml.safe_load(block.text))
    trigger = EventTrigger.model_validate(automation.trigger.model_dump(mode="json"))
    heard = {outcome for outcome in Outcome if trigger.expects(f"prefect.flow-run.{outcome}")}
    assert heard == {Outcome.PROMOTED, Outcome.REFUSED, Outcome.NOTHING_TO_DO}
    assert trigger.posture.value == "Proactive" and trigger.within.days == 8
    assert automation.trigger.match_related["prefect.resource.name"] == [retrain.name]
