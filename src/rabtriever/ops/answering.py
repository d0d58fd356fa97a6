"""A version asked the way its server would be: loaded as a pyfunc, with the code that it carries."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_PATIENCE = 900  # seconds that a version has to load and answer in a process of its own
# asks a version in a process of its own, where no other code of the package is loaded yet
_ASK = """
import json, sys
import mlflow.pyfunc, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
hits = model.predict(pandas.DataFrame({"query": [sys.argv[2]]}), params={"k": int(sys.argv[3])})["hits"][0]
print("\\n" + json.dumps(list(hits)))
"""


def ask(model: Path, query: str, k: int) -> list[dict[str, Any]]:
    """Returns the documents that the model in a folder finds, with the code that is loaded here.

    Args:
        model: folder of the pyfunc.
        query: the question.
        k: documents wanted.
    """
    import mlflow.pyfunc
    import pandas as pd

    loaded = mlflow.pyfunc.load_model(str(model))
    return list(loaded.predict(pd.DataFrame({"query": [query]}), params={"k": k})["hits"][0])


def ask_apart(model: Path, query: str, k: int) -> list[dict[str, Any]]:
    """Returns the documents that the model in a folder finds, with its own code in a process of its own.

    Raises:
        ChildProcessError: it fails, or takes longer than 15 minutes.
    """
    command = [sys.executable, "-c", _ASK, str(model), query, str(k)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise ChildProcessError(f"with its own code it gave no answer in {_PATIENCE} s") from error
    if done.returncode < 0:
        raise ChildProcessError(f"with its own code it was killed by signal {-done.returncode}")
    if done.returncode:
        raise ChildProcessError(f"with its own code: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])
