"""The fit: the same seed gives the same weights, a resumed run the weights of the uninterrupted one."""

import math
import os
import signal

import numpy as np
import pytest
import torch

from rabtriever.core import code
from rabtriever.training import trainer
from rabtriever.training.trainer import StepModule, checkpoint_folder, fit, rate_at


class Line(StepModule):
    """Linear regression on batches drawn from the step's generator; can be killed, or given a broken loss."""

    def __init__(self, seed: int = 0, steps: int = 12, kill_at: int = -1, error: type = RuntimeError) -> None:
        super().__init__(seed, steps, learning_rate=0.05, weight_decay=0.01)
        torch.manual_seed(5)
        self.layer = torch.nn.Linear(6, 2)
        self.kill_at, self.error = kill_at, error
        self.seen: list[float] = []

    def losses(self, rng):
        if self.global_step == self.kill_at:
            raise self.error("killed")
        inputs = torch.from_numpy(rng.normal(size=(8, 6)).astype(np.float32))
        self.seen.append(float(inputs[0, 0]))
        difference = self.layer(inputs) - inputs[:, :2]
        return {"near": difference.pow(2).mean(), "small": 0.01 * self.layer.weight.pow(2).sum()}


class Dropping(Line):
    """Dropout, as encoders of the BERT family have."""

    def losses(self, rng):
        kept = torch.nn.functional.dropout(self.layer.weight, 0.5)
        return {**super().losses(rng), "dropped": kept.pow(2).sum()}


class Broken(Line):
    """A loss that is not finite at step 3."""

    def losses(self, rng):
        terms = super().losses(rng)
        if self.global_step == 3:
            terms["small"] = terms["small"] * math.inf
        return terms


def test_parts_go_back_to_where_they_were():
    """Lightning leaves a trained model on the CPU, and what comes next reads with it there, on a machine with a GPU."""
    module = Line()
    module.other = torch.nn.Linear(2, 2, device="meta")
    module.empty = torch.nn.ReLU()
    assert trainer._devices(module) == [(module.layer, torch.device("cpu")), (module.other, torch.device("meta"))]


def weights(module: torch.nn.Module) -> torch.Tensor:
    """All weights as one vector."""
    return torch.nn.utils.parameters_to_vector(module.parameters()).detach().clone()


def trained(**arguments) -> torch.Tensor:
    """The weights after an uninterrupted fit without checkpoints."""
    module = Line(**arguments)
    fit(module, "line")
    assert not module.training
    return weights(module)


def test_the_same_seed_gives_the_same_weights():
    """A run cannot be repeated, or its seed does nothing."""
    assert torch.equal(trained(seed=3), trained(seed=3))
    assert not torch.equal(trained(seed=3), trained(seed=4))
    assert not torch.equal(trained(seed=3, steps=11), trained(seed=3))


def test_every_step_has_a_batch_of_its_own():
    """All steps, or all seeds that differ by one, see the same batch."""
    modules = [Line(seed=seed) for seed in (0, 1)]
    for module in modules:
        fit(module, "line")
    assert all(len(module.seen) == 12 for module in modules)
    assert len(set(modules[0].seen + modules[1].seen)) == 24


@pytest.mark.parametrize("kills", [[7], [1], [4, 9], [3, 4, 5, 11]])
def test_resumed_equals_uninterrupted(every_step, kills):
    """Killed and started again, a run sees other batches, another learning rate, or an older checkpoint."""
    expected = trained(seed=3)
    for step in kills:
        with pytest.raises(RuntimeError, match="killed"):
            fit(Line(seed=3, kill_at=step), "line", every_step)
        assert any(every_step.glob("*.ckpt"))
    last = Line(seed=3)
    fit(last, "line", every_step)
    assert torch.equal(weights(last), expected)
    assert len(last.seen) == 12 - kills[-1], "the steps before the last kill are not repeated"


def test_resume_with_dropout(every_step):
    """Dropout goes on from the random numbers of a new process: the resumed run is another one."""
    expected = Dropping()
    fit(expected, "line")
    with pytest.raises(RuntimeError, match="killed"):
        fit(Dropping(kill_at=7), "line", every_step)
    resumed = Dropping()
    fit(resumed, "line", every_step)
    assert torch.equal(weights(resumed), weights(expected))


def test_kill_between_checkpoints(monkeypatch, tmp_path):
    """A checkpoint some steps old is resumed with the batches of the steps after the kill."""
    expected = trained(seed=3)
    module = Line(seed=3, kill_at=8)
    now = [0.0]
    monkeypatch.setattr("lightning.pytorch.callbacks.model_checkpoint.time.monotonic", lambda: now[0])
    plain = module.losses
    module.losses = lambda rng: (now.__setitem__(0, now[0] + 10), plain(rng))[1]  # ten seconds a step
    with pytest.raises(RuntimeError, match="killed"):
        fit(module, "line", tmp_path / "scratch")
    resumed = Line(seed=3)
    fit(resumed, "line", tmp_path / "scratch")
    assert 12 - 8 < len(resumed.seen) < 12
    assert torch.equal(weights(resumed), expected)


def test_a_finished_fit_is_not_done_again(tmp_path):
    """A kill before anything is saved costs the whole training, trains on past its end, or gives the first weights."""
    expected = trained(seed=3)
    fit(Line(seed=3), "line", tmp_path / "scratch")
    again = Line(seed=3)
    fit(again, "line", tmp_path / "scratch")
    assert torch.equal(weights(again), expected) and again.seen == [] and not again.training


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_an_interrupted_fit_does_not_return(every_step, error):
    """After Ctrl-C the half-trained weights are saved as the stage's result."""
    with pytest.raises((error, SystemExit)):
        fit(Line(kill_at=5, error=error), "line", every_step)
    assert any(every_step.glob("*.ckpt"))


@pytest.fixture
def plain_sigterm():
    """SIGTERM as a fresh process has it: a stage's guard tested before may have left its own handler."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_terminated_fit_fails(every_step, plain_sigterm):
    """Lightning ends a process told to stop (SIGTERM) with status 0, which a pipeline takes for a finished stage."""
    module = Line()
    plain = module.losses

    def losses(rng):
        if module.global_step == 5:
            assert callable(signal.getsignal(signal.SIGTERM)), "else the whole test run would end here"
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(rng)

    module.losses = losses
    with pytest.raises(SystemExit) as found:
        fit(module, "line", every_step)
    assert found.value.code == 143 and any(every_step.glob("*.ckpt"))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, "later kills are not swallowed"


def test_a_loss_that_is_not_finite(every_step):
    """Training goes on with NaN weights to the end, and the next stage ranks by them."""
    with pytest.raises(FloatingPointError, match=r"loss is inf at step 3 \(.*'small': inf.*lower the learning rate"):
        fit(Broken(), "line", every_step)


def test_no_steps():
    """A stage that is switched off by `steps: 0` changes the weights or divides by zero."""
    assert torch.equal(trained(steps=0), weights(Line()))


def test_nothing_is_left_in_the_working_folder(every_step, monkeypatch, tmp_path):
    """Lightning's own logs and checkpoints fill the project's folder and are committed."""
    empty = tmp_path / "here"
    empty.mkdir()
    monkeypatch.chdir(empty)
    fit(Line(), "line", every_step)
    fit(Line(), "line")
    assert list(empty.iterdir()) == []


def test_only_what_is_trainable_is_optimised():
    """Frozen weights drift by weight decay; vectors are decayed."""
    module = Line()
    module.layer.bias.requires_grad_(False)
    groups = module.configure_optimizers()["optimizer"].param_groups
    assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(1, 0.01), (0, 0.0)]
    module.layer.bias.requires_grad_(True)
    groups = module.configure_optimizers()["optimizer"].param_groups
    assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(1, 0.01), (1, 0.0)]


def test_schedule():
    """The rate jumps, never reaches its peak, or ends at zero so that the last steps do nothing."""
    rates = [rate_at(step, 100) for step in range(100)]
    assert rates[:6] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1])
    assert max(rates) == 1 and all(a >= b for a, b in zip(rates[6:], rates[7:], strict=False))
    assert rates[53] == pytest.approx(0.525, abs=1e-9) and 0.05 < rates[99] < 0.051
    assert rate_at(0, 1) == 1 and rate_at(500, 100) == pytest.approx(0.05)


def test_every_step_has_its_rate():
    """The schedule is made and not used: every step is taken at the peak rate, or at that of the epoch's start."""
    module, rates = Line(steps=40), []
    module.on_train_batch_end = lambda *_: rates.append(module.optimizers().param_groups[0]["lr"])
    fit(module, "line")
    assert rates[:-1] == pytest.approx([0.05 * rate_at(step, 40) for step in range(1, 40)]), "of the step to come"
    assert len({round(rate, 9) for rate in rates}) > 30


def test_checkpoint_folder_depends_on_its_inputs(tmp_path):
    """A run resumes from the checkpoint of one with other data or settings."""
    folders = [
        checkpoint_folder(tmp_path, stage, inputs)
        for stage, inputs in (("a", {"x": 1, "y": 2}), ("a", {"y": 2, "x": 1}), ("a", {"x": 1}), ("b", {"x": 1}))
    ]
    assert folders[0] == folders[1] and len(set(folders)) == 3
    assert not folders[0].exists(), "naming a folder does not make it"


def test_checkpoint_folder_depends_on_the_code(tmp_path, monkeypatch):
    """Half a training by the loss before a fix and half by the one after is taken for a result."""
    monkeypatch.chdir(tmp_path)  # what files meant is remembered there
    before = checkpoint_folder(tmp_path, "a", {})
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "objectives.py").write_text("LOSS = 2")
    monkeypatch.setattr(code, "_PACKAGE", tmp_path / "code")
    trainer._code_hash.cache_clear()
    changed = checkpoint_folder(tmp_path, "a", {})
    trainer._code_hash.cache_clear()
    assert before != changed


def test_progress_goes_to_stderr(capsys, caplog, every_step, monkeypatch):
    """Losses are mixed into what a stage prints for programs to read, or remarks of the library's into the progress."""
    monkeypatch.setattr("rabtriever.core.progress.LOG_SECONDS", 0.0)
    with caplog.at_level("INFO"):
        fit(Line(), "line", every_step)
    assert caplog.records == []
    out, err = capsys.readouterr()
    assert out == "" and "line: 12/12 | " in err and "| loss " in err


def test_gradients_are_clipped():
    """One bad batch throws the weights far from where they were; or small gradients are made larger."""
    for factor in (1000.0, 0.001):
        module, sizes = Line(), []
        plain = module.losses
        module.losses = lambda rng, plain=plain, factor=factor: {"all": factor * sum(plain(rng).values())}
        module.on_train_batch_end = lambda *_, module=module, sizes=sizes: sizes.append(size_of_gradient(module))
        fit(module, "line")
        assert len(sizes) == 12
        assert sizes == pytest.approx([1.0] * 12, abs=1e-3) if factor > 1 else max(sizes) < 0.1


def size_of_gradient(module: torch.nn.Module) -> float:
    """Euclidean length of the gradients of all weights."""
    return float(torch.cat([parameter.grad.flatten() for parameter in module.parameters()]).norm())
