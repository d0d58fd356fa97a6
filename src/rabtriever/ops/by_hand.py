"""Promotions and rollbacks that somebody decided, with their reason recorded on the version that came into service."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from rabtriever.ops import registry, tracking
from rabtriever.ops.registry import RegisteredVersion

TAG = "by_hand"
MAX_REASON = 500  # characters
_KEPT = 20  # records of a version; MLflow limits the length of a tag


def promote(version: RegisteredVersion, reason: str, user: str) -> dict[str, Any]:
    """Makes a version the champion after it has answered a question; returns what is recorded.

    Raises:
        ValueError: the reason is blank or too long, or the version is in service already.
        ArtifactMismatchError: the version does not answer; nothing was changed.
    """
    reason, before = _checked(reason), registry.champion()
    if before is not None and before.version == version.version:
        raise ValueError(f"{version} is the champion already; name another one")
    registry.check_answers(version)
    registry.promote(version)
    return _recorded("promoted", version, before, reason, user)


def rollback(to: str, reason: str, user: str) -> dict[str, Any]:
    """Puts an earlier version back into service as `registry.rollback` does; returns what is recorded.

    Raises:
        ValueError: the reason is blank or too long, or what `registry.rollback` raises.
        ArtifactMismatchError: the version does not answer; nothing was changed.
    """
    reason = _checked(reason)
    now, before = registry.rollback(to)
    return _recorded("rolled back", now, before, reason, user)


def history(version: RegisteredVersion) -> list[dict[str, Any]]:
    """What was decided by hand on a version, the newest first: {action, at, user, reason, before}."""
    return json.loads(version.tags.get(TAG, "[]"))


def _checked(reason: str) -> str:
    text = " ".join(reason.split())
    if not text or len(text) > MAX_REASON:
        found = f"of {len(text)} characters" if text else "blank"
        raise ValueError(f"the reason is {found}; write one of 1 to {MAX_REASON} characters, for whoever comes next")
    return text


def _recorded(
    action: str, version: RegisteredVersion, before: RegisteredVersion | None, reason: str, user: str
) -> dict[str, Any]:
    record = {
        "action": action,
        "version": version.version,
        "before": None if before is None else before.version,
        "reason": reason,
        "user": user,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    kept = json.dumps([record, *history(version)][:_KEPT])
    tracking.client().set_model_version_tag(registry.MODEL, version.version, TAG, kept)
    return record
