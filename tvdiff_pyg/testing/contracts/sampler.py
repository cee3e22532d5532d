"""The contract of a sampler of negatives."""
from __future__ import annotations

import copy
from typing import Any, Callable, Tuple, Union

import torch
from torch import Tensor

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.sampling.base import NegativeSampler, dense_scores
from tvdiff_pyg.testing.contracts.common import (
    NUM_STEPS,
    corner_cases,
    generator,
    global_generator_rests,
    laboratory,
    normal,
    rule,
    sparse_rows,
    untouched,
)


@laboratory()
def check_sampler(sampler: Union[NegativeSampler, Callable[[InteractionMatrix], NegativeSampler]]) -> None:
    """Check a sampler of negatives; that it can draw every unobserved item is no rule, as hard negatives are a choice.

    Args:
        sampler: the sampler, or ``make(interactions)`` that returns one for given interactions.

    Raises:
        AssertionError: a rule is broken.
        TypeError: ``sampler`` is the class of one.
    """
    if isinstance(sampler, type):
        raise TypeError(f"'sampler' is the class {sampler.__name__}: pass {sampler.__name__}(...)")
    for interactions in (corner_cases(), sparse_rows(30, 200)):
        fresh = copy.deepcopy(interactions)
        module: Any = sampler if isinstance(sampler, torch.nn.Module) else sampler(interactions)
        everyone = torch.arange(interactions.num_users)
        mixed = torch.cat([everyone.flip(0), everyone[::2], everyone]).repeat(5)
        for users in (mixed, *everyone[:6].repeat_interleave(2).split(2)):
            _check_draws(module, interactions, users)
        shape = mixed.numel(), interactions.num_items
        for case, scores in {'equal scores': torch.zeros(shape), 'huge scores': 1e30 * normal(*shape),
                             'float32 scores': normal(*shape).float(),
                             'scores of minus infinity': torch.where(normal(*shape) < 0, -torch.inf, 0.0)}.items():
            _check_draw(module, interactions, mixed, torch.full_like(mixed, 4), scores, case)
        with rule('an empty batch gives no negatives'):
            none = mixed[:0]
            row, item = _draw(module, interactions, none, none, torch.zeros(0, interactions.num_items))
            assert row.numel() == item.numel() == 0, f'{row.numel()} rows and {item.numel()} items'

        wanted, scores, t = interactions.user_degree[mixed], normal(*shape), torch.arange(mixed.numel()) % NUM_STEPS
        with rule('arguments stay as they were'), untouched(
                users=mixed, num_negatives=wanted, scores=scores, t=t, **dict(fresh.named_buffers())):
            module(fresh, mixed, wanted, dense_scores(scores), t, NUM_STEPS, generator())
        with rule('the same generator seed gives the same draw'):
            first, same = (torch.stack([*_draw(module, interactions, mixed, wanted, scores)]) for _ in range(2))
            differ = int((first != same).any(0).sum()) if first.shape == same.shape else 'some'
            assert differ == 0, f"{differ} of {first.size(1)} pairs differ: pass 'generator' to all that is random"
        with rule('all randomness comes from the generator'), global_generator_rests():
            _draw(module, interactions, mixed, wanted, scores)


def _draw(sampler: NegativeSampler, interactions: InteractionMatrix, users: Tensor, wanted: Tensor,
          scores: Tensor) -> Tuple[Tensor, Tensor]:
    t = torch.arange(users.numel()) % NUM_STEPS
    users, wanted, scores = users.clone(), wanted.clone(), scores.clone()  # that nobody writes to them is its own rule
    return sampler(interactions, users, wanted, dense_scores(scores), t, NUM_STEPS, generator())


def _check_draws(sampler: NegativeSampler, interactions: InteractionMatrix, users: Tensor) -> None:
    seen, num_items = interactions.user_degree[users], interactions.num_items
    scores = normal(users.numel(), num_items)
    whose = f'user {int(users[0])}, who saw {int(seen[0])} of {num_items}' if users.numel() == 2 else 'all users'
    for number, wanted in {'as many as each has seen': seen, 'all': torch.full_like(seen, num_items + 5),
                           'none': torch.zeros_like(seen), 'one': torch.ones_like(seen),
                           'three': torch.full_like(seen, 3), '0 to 4': torch.arange(seen.numel()) % 5}.items():
        _check_draw(sampler, interactions, users, wanted, scores, f'{number} for {whose}')


def _check_draw(sampler: NegativeSampler, interactions: InteractionMatrix, users: Tensor, wanted: Tensor,
                scores: Tensor, case: str) -> None:
    num_items = interactions.num_items
    with rule('a sampler returns two index vectors of one length', case):
        row, item = _draw(sampler, interactions, users, wanted, scores)
        assert row.dtype == item.dtype == torch.long, f'types {row.dtype} and {item.dtype}'
        assert row.dim() == 1 and row.shape == item.shape, f'shapes {list(row.shape)} and {list(item.shape)}'
    with rule('rows and items lie in range', case):
        for index, size in ((row, users.numel()), (item, num_items)):
            bad = index[(index < 0) | (index >= size)]
            assert bad.numel() == 0, f'{int(bad[0]) if bad.numel() else None} is not in 0..{size - 1}'
    with rule('negatives are sorted by row', case):
        assert torch.equal(row, row.sort().values), f'rows {row[:20].tolist()} ...'
    with rule('an observed item is never drawn', case):
        bad = interactions.contains(users[row], item).nonzero().view(-1)
        assert bad.numel() == 0, f'user {int(users[row[bad[0]]])} got item {int(item[bad[0]])}'
    with rule('no item is drawn twice in a row of the batch', case):
        key, count = (row * num_items + item).unique(return_counts=True)
        bad = key[count > 1]
        assert bad.numel() == 0, f'row {int(bad[0]) // num_items} got item {int(bad[0]) % num_items} twice'
    with rule('a row gets as many as asked for, up to what its user has not seen', case):
        got, right = row.bincount(minlength=users.numel()), wanted.minimum(num_items - interactions.user_degree[users])
        bad = (got != right).nonzero().view(-1)
        assert bad.numel() == 0, f'row {int(bad[0])} got {int(got[bad[0]])} instead of {int(right[bad[0]])}'
