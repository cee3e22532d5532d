from collections import deque

import pytest
import torch

from tvdiff_pyg.diffusion import LossHistoryTimesteps, UniformTimesteps
from tvdiff_pyg.testing import assert_frequencies


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class DequeReference:
    """The same sampler in plain Python, one loss at a time."""

    def __init__(self, num_steps, history, uniform):
        self.uniform = uniform
        self.history = [deque(maxlen=history) for _ in range(num_steps)]

    def update(self, t, loss):
        for step, value in zip(t.tolist(), loss.tolist()):
            self.history[step].append(value)

    def probability(self):
        num_steps = len(self.history)
        if any(len(h) < h.maxlen for h in self.history):
            return [1 / num_steps] * num_steps
        root = [(sum(v * v for v in h) / len(h)) ** 0.5 for h in self.history]
        return [(1 - self.uniform) * r / sum(root) + self.uniform / num_steps for r in root]


def test_uniform():
    t, weight = UniformTimesteps(7)(20_000, generator=generator())
    assert_frequencies(t.bincount(minlength=7), torch.full((7,), 1 / 7))
    assert torch.equal(weight, torch.ones(20_000))
    assert torch.equal(t, UniformTimesteps(7)(20_000, generator=generator())[0])
    assert UniformTimesteps(1)(3)[0].tolist() == [0, 0, 0]


@pytest.mark.parametrize('history, uniform', [(1, 1e-3), (3, 0.2), (10, 1.0)])
def test_loss_history_against_deques(history, uniform):
    sampler, reference = LossHistoryTimesteps(4, history, uniform), DequeReference(4, history, uniform)
    draw, warm = generator(), 0
    for size in [1, 5, 0, 2, 60, 3, 1, 40, 7, 100, 2]:  # single batches longer than all rings together
        t = torch.randint(4, (size,), generator=draw)
        loss = torch.rand(size, generator=draw) * (t + 1)
        sampler.update(t, loss)
        reference.update(t, loss)
        torch.testing.assert_close(sampler.probability(), torch.tensor(reference.probability()))
        warm += reference.probability()[0] != 1 / 4
    assert warm >= 4 or uniform == 1


def test_loss_history_keeps_float64_and_gives_weights_of_the_default_type():
    torch.set_default_dtype(torch.float32)  # which the fixture restores anyway
    sampler = LossHistoryTimesteps(3)
    assert sampler.history == 10 and sampler.losses.dtype == torch.float64 and sampler(4)[1].dtype == torch.float32


def test_loss_history_frequencies_and_weights():
    sampler = LossHistoryTimesteps(5, 2, 0.05)
    uniform, weight = sampler(20_000, generator=generator())
    assert_frequencies(uniform.bincount(minlength=5), torch.full((5,), 0.2))  # no history yet
    torch.testing.assert_close(weight, torch.ones(20_000))

    loss = torch.tensor([1.0, 2.0, 0.0, 4.0, 8.0])
    for _ in range(2):
        sampler.update(torch.arange(5), loss)
    p = 0.95 * loss / loss.sum() + 0.05 / 5
    t, weight = sampler(100_000, generator=generator(1))
    assert_frequencies(t.bincount(minlength=5), p)
    torch.testing.assert_close(weight, 1 / (5 * p[t]))
    # any function of the step keeps its plain mean
    f = torch.tensor([3.0, -1.0, 4.0, 1.0, 5.0])
    value = weight * f[t]
    assert abs(value.mean() - f.mean()) < 4 * value.std() / 100_000 ** 0.5
    torch.testing.assert_close((p * (1 / (5 * p)) * f).sum(), f.mean())
    assert torch.equal(t, sampler(100_000, generator=generator(1))[0])


def test_loss_history_of_zeros_stays_uniform():
    sampler = LossHistoryTimesteps(3, 1)
    sampler.update(torch.arange(3), torch.zeros(3))
    torch.testing.assert_close(sampler.probability(), torch.full((3,), 1 / 3))


def test_loss_history_is_saved_and_holds_no_graph():
    sampler = LossHistoryTimesteps(2, 1)
    sampler.update(torch.tensor([0, 1]), torch.tensor([1.0, 3.0], requires_grad=True) * 2)
    assert not sampler.losses.requires_grad
    other = LossHistoryTimesteps(2, 1)
    other.load_state_dict(sampler.state_dict())
    torch.testing.assert_close(other.probability(), torch.tensor([0.25, 0.75]) * 0.999 + 0.0005)


@pytest.mark.parametrize('options, message', [
    (dict(num_steps=0), "'num_steps' must be at least 1, got 0"),
    (dict(history=0), "'history' must be at least 1, got 0"),
    (dict(uniform=0.0), r"'uniform' must lie in \(0, 1\], got 0.0"),
    (dict(uniform=1.5), "'uniform'"),
])
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        LossHistoryTimesteps(**{'num_steps': 3, **options})
