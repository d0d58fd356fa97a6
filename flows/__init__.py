"""The pipeline's stages as Prefect flows; importing this package first sets the switches every stage relies on.

The switches must be in the environment before Prefect, MLflow, Great Expectations or a Hugging Face library is
imported, which is why they live here and not in a settings file. Each is only a default: a value already set wins.
"""

import contextlib
import os
from pathlib import Path

import rabtriever.ops  # noqa: F401 - keeps servers on this machine from the environment's proxy

_ROOT = Path(__file__).resolve().parent.parent

_SWITCHES = {
    # no telemetry, no look-ups (MLflow accepts only "true" for DO_NOT_TRACK)
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # an ephemeral Prefect server may need more than its default of 20 s on a busy machine
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # Prefect keeps its logs for the UI; on the console each stage speaks for itself and a failure is one message
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "TOKENIZERS_PARALLELISM": "false",
}

for _name, _value in _SWITCHES.items():
    os.environ.setdefault(_name, _value)

# A user who already keeps Prefect profiles (a server, an API key) goes on using them.
if not (Path.home() / ".prefect" / "profiles.toml").exists():
    os.environ.setdefault("PREFECT_HOME", str(_ROOT / ".cache" / "prefect"))
    with contextlib.suppress(OSError):  # Prefect makes its own folder, but not the one above
        (_ROOT / ".cache").mkdir(exist_ok=True)
