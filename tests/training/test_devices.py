"""A fit in several processes, as on several GPUs: what it gives, what it tells, and how it ends."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from rabtriever.training import trainer
from rabtriever.training.trainer import fit
from tests.closure import ROOT
from tests.toy import alive, wait_for
from tests.training.test_trainer import Broken, Line, weights


class Slow(Line):
    """Half a second a step, and says so: a progress line in a log comes late."""

    def losses(self, rng):
        time.sleep(0.5)
        print("a step", file=sys.stderr, flush=True)
        return super().losses(rng)


def two_processes(monkeypatch):
    """As many as for two GPUs, which are not here; as in a job of SLURM with one task, which this process is."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    hardware = trainer.hardware() | {"accelerator": "cpu"}
    monkeypatch.setattr(trainer, "hardware", lambda: hardware)
    job = {"NTASKS": "1", "JOB_NAME": "job", "PROCID": "0", "LOCALID": "0", "NODEID": "0", "JOB_ID": "7"}
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", value)


@pytest.mark.slow
def test_two_devices_tell_what_is_wrong(monkeypatch):
    """Pages of two processes' tracebacks in place of the advice."""
    two_processes(monkeypatch)
    with pytest.raises(FloatingPointError, match="loss is inf at step 3 .*: lower the learning rate$"):
        fit(Broken(), "line")


@pytest.mark.slow
def test_two_devices_end_with_the_process_that_started_them(tmp_path):
    """A stage that is told to end leaves the GPUs to processes that train on for hours."""
    program = (
        "if __name__ == '__main__':\n"
        "    import pytest\n"
        "    from flows.common import guard\n"
        "    from tests.training.test_devices import Slow, fit, two_processes\n"
        "    with pytest.MonkeyPatch.context() as patched, guard('stage'):\n"
        "        two_processes(patched)\n"
        "        fit(Slow(steps=1000), 'line')\n"
    )
    (tmp_path / "stage.py").write_text(program)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    with open(tmp_path / "said", "w+") as said:
        stage = subprocess.Popen(
            [sys.executable, tmp_path / "stage.py"], env=environment, stderr=said, start_new_session=True
        )
        wait_for(lambda: "a step" in (tmp_path / "said").read_text(), 120)
        stage.terminate()
        assert stage.wait(60) == 128 + signal.SIGTERM
    wait_for(lambda: not alive(stage.pid), 30)


@pytest.mark.slow
def test_two_devices_average_their_gradients(every_step, monkeypatch, capfd):
    """On several GPUs every one draws the same batch or trains alone, tells its own progress, or gives back nothing."""
    expected = Line(seed=3, steps=3)
    rank = iter([0, 1] * 3)
    plain = expected.losses
    expected.losses = lambda _: {
        str(number): plain(np.random.default_rng((3, expected.global_step, next(rank))))["near"] / 2
        + 0.005 * expected.layer.weight.pow(2).sum()
        for number in range(2)
    }
    fit(expected, "line")
    two_processes(monkeypatch)
    module = Slow(seed=3, steps=3)
    fit(module, "slow", every_step)
    assert capfd.readouterr().err.count("slow: 3/3") == 1, "one progress line, not one for each process"
    assert not module.training and [one.name for one in every_step.iterdir()] == ["step.ckpt"]
    torch.testing.assert_close(weights(module), weights(expected))
