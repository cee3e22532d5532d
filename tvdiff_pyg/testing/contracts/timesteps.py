"""The contract of how steps are drawn in training."""
from __future__ import annotations

from typing import Callable

import torch
from torch import Tensor

from tvdiff_pyg.diffusion.timesteps import TimestepSampler
from tvdiff_pyg.testing.contracts.common import (
    NUM_STEPS,
    check_state_dict,
    estimates,
    generator,
    global_generator_rests,
    has_shape,
    is_finite,
    laboratory,
    raises_value_error,
    rule,
    untouched,
)


@laboratory()
def check_timesteps(make: Callable[[int], TimestepSampler]) -> None:
    """Check how steps are drawn in training.

    Args:
        make: ``make(num_steps)`` returns the sampler of steps.

    Raises:
        AssertionError: a rule is broken.
    """
    with rule('a number of steps below 1 raises ValueError'):
        raises_value_error(lambda: make(0))
    with rule('num_steps is what was asked for'):
        for num_steps in (1, NUM_STEPS):
            assert make(num_steps).num_steps == num_steps, f'{make(num_steps).num_steps} instead of {num_steps}'

    def learn(sampler: TimestepSampler, losses: Tensor) -> None:
        t = torch.arange(sampler.num_steps).repeat(50)
        loss = losses.repeat(50).requires_grad_()
        with rule('update leaves its arguments as they were'), untouched(t=t, loss=loss):
            sampler.update(t, loss)

    for num_steps in (1, NUM_STEPS):
        sampler = make(num_steps)
        _check_steps(sampler, f'{num_steps} steps, before any loss')
        with rule('an empty batch gives no steps', f'{num_steps} steps'):
            assert [part.numel() for part in sampler(0, 'cpu', generator())] == [0, 0], 'some were drawn'
        learn(sampler, torch.arange(1.0, num_steps + 1))
        _check_steps(sampler, f'{num_steps} steps, after losses')
        learn(sampler, torch.zeros(num_steps))
        _check_steps(sampler, f'{num_steps} steps, after losses of zero')
    check_state_dict(lambda: make(NUM_STEPS), lambda made: torch.cat(made(100, generator=generator())),
                     lambda made: learn(made, torch.arange(1.0, NUM_STEPS + 1)))


def _check_steps(sampler: TimestepSampler, case: str) -> None:
    size = 20_000
    with rule('steps are [B] integers in 0..T-1', case):
        t, weight = sampler(size, 'cpu', generator())
        assert t.shape == (size,) and t.dtype == torch.long, f'{t.dtype} of shape {list(t.shape)}'
        assert 0 <= int(t.min()) <= int(t.max()) < sampler.num_steps, f'{int(t.min())}..{int(t.max())}'
    with rule('weights are [B] finite numbers above 0 that hold no graph', case):
        has_shape(weight, size)
        is_finite(weight)
        assert float(weight.detach().min()) > 0, f'the smallest is {float(weight.detach().min())}'
        assert not weight.requires_grad, 'they hold the graph of a loss'
    with rule('the same generator seed gives the same steps and weights', case):
        for one, other in zip(sampler(size, 'cpu', generator()), (t, weight)):
            assert torch.equal(one, other), f'{int((one != other).sum())} of {size} differ'
    with rule('all randomness comes from the generator', case), global_generator_rests():
        sampler(size, generator=generator())
    with rule('weights keep the mean over the steps unbiased', case):
        estimates(weight.unsqueeze(1) * torch.nn.functional.one_hot(t, sampler.num_steps),
                  torch.full((sampler.num_steps,), 1 / sampler.num_steps))
