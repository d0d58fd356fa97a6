"""The optimiser of models from scratch: both parts step, follow the schedule, and go on where they were."""

import torch
from torch import nn

from rabtriever.training.optimizers import Muon, MuonAdamW


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.matrix, self.vector = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(3))

    def loss(self, step: int) -> torch.Tensor:
        inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(step))
        return (inputs @ self.matrix + self.vector - inputs[:, :3]).pow(2).mean()


def built(model: Model, weight_decay: float = 0.1) -> MuonAdamW:
    others = [{"params": [model.vector], "lr": 0.05, "weight_decay": 0.0}]
    return MuonAdamW([model.matrix], others, 0.05, weight_decay)


def train(model: Model, optimizer: MuonAdamW, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        model.loss(step).backward()
        optimizer.step()


def test_both_parts_learn():
    """One of the two is never stepped."""
    model, start = Model(), Model()
    before = float(model.loss(0).detach())
    train(model, built(model), range(60))
    assert float(model.loss(0).detach()) < 0.5 * before
    assert not torch.equal(model.matrix, start.matrix) and not torch.equal(model.vector, start.vector)


def test_muon_moves_all_directions_of_a_matrix_alike():
    """The matrix is trained by AdamW, and takes half as many steps again (first step: nearly orthogonal)."""
    model, start = Model(), Model()
    train(model, built(model, weight_decay=0.0), range(1))
    sizes = torch.linalg.svdvals((model.matrix - start.matrix).detach())
    assert sizes.min() > 0.5 * sizes.max() > 0


def test_a_resumed_run_takes_both_parts_up():
    """Momentum of one part is lost with a checkpoint, or a scheduler goes on to change groups that nobody reads."""
    whole = Model()
    train(whole, built(whole), range(8))
    first = Model()
    optimizer = built(first)
    train(first, optimizer, range(4))
    saved = optimizer.state_dict()
    second = Model()
    second.load_state_dict(first.state_dict())
    again = built(second)
    again.load_state_dict(saved)
    train(second, again, range(4, 8))
    assert torch.equal(second.matrix, whole.matrix) and torch.equal(second.vector, whole.vector)
    assert len(again.state) == 2, "of both parameters, as Lightning moves it to the device"
    kept = second.matrix.clone(), second.vector.clone()
    for group in again.param_groups:
        group["lr"] = 0.0
    train(second, again, range(8, 9))
    assert torch.equal(second.matrix, kept[0]) and torch.equal(second.vector, kept[1])


def test_muon_is_torchs_in_float32():
    """Momentum, look-ahead, scale or decay are other ones; torch's own rounds to three digits on the way."""
    torch.manual_seed(5)
    for shape in ((6, 10), (10, 6)):
        ours = nn.Parameter(torch.randn(shape))
        theirs = nn.Parameter(ours.detach().clone())
        start = ours.detach().clone()
        reference = torch.optim.Muon([theirs], lr=0.05, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
        optimizer = Muon([ours], 0.05, 0.1)
        for _ in range(4):
            gradient = torch.randn(shape)
            ours.grad, theirs.grad = gradient.clone(), gradient.clone()
            optimizer.step()
            reference.step()
        moved = (theirs - start).detach().abs().max()
        assert float((ours - theirs).detach().abs().max()) < 0.02 * float(moved)
