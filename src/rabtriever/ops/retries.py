"""A scheduled retraining whose process was killed is run once more, as a hook of its Prefect flow."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas import FlowRun
from prefect.states import AwaitingRetry, State

_WAIT = timedelta(seconds=15)  # until whoever started the process has forgotten it, and its children have ended


def retry_killed(flow: Any, flow_run: FlowRun, state: State[Any]) -> None:
    """Schedules a flow run again whose first process was killed; a second time it stays as it is.

    Prefect calls it in the process that started the flow run's: `--serve`, or a worker. Prefect's own retries are for
    errors that the flow raises itself, which another attempt would raise again.

    Args:
        flow: the flow; Prefect names it when it calls.
        flow_run: the one whose process is gone.
        state: its state, which says so.
    """
    if not state.is_crashed() or flow_run.deployment_id is None:
        return
    with get_client(sync_client=True) as client:
        if client.read_flow_run(flow_run.id).run_count <= 1:
            again = AwaitingRetry(scheduled_time=datetime.now(UTC) + _WAIT)
            client.set_flow_run_state(flow_run.id, again, force=True)
