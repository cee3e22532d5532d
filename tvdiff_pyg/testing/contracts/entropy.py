"""The contract of an entropy term."""
from __future__ import annotations

import copy
from itertools import product
from typing import Callable

import torch
from torch import Tensor

from tvdiff_pyg.nn.loss import EntropyTerm
from tvdiff_pyg.testing.contracts.common import (
    EXACT,
    EXTREME,
    close,
    global_generator_rests,
    gradients,
    has_shape,
    is_finite,
    laboratory,
    normal,
    reach,
    rule,
    untouched,
)


@laboratory()
def check_entropy(make: Callable[[], EntropyTerm]) -> None:
    """Check an entropy term of the free energy, which training makes as large as it can.

    Args:
        make: returns the term; its class, where that takes no arguments.

    Raises:
        AssertionError: a rule is broken.
        TypeError: ``make`` is a term.
    """
    if isinstance(make, EntropyTerm):
        raise TypeError(f"'make' is a term: pass its class, {type(make).__name__}, or a function that makes one")
    term = make()
    num_rows, num_items = 4, 7
    # Row 1 has no pairs and row 2 no negatives; a pairwise term has a positive in every row.
    positive_row = torch.arange(num_rows) if term.pairwise else torch.tensor([0, 0, 2, 2, 2, 3])
    negative_row = torch.tensor([0, 1, 3] if term.pairwise else [0, 0, 3])
    positive, negative = normal(positive_row.numel()), normal(negative_row.numel(), seed=1)

    def run(p: Tensor, p_row: Tensor, n: Tensor, n_row: Tensor, *, size: int = num_rows) -> Tensor:
        return term(p, p_row, *((n, n_row) if term.needs_negatives else (None, None)), size, num_items)

    arguments = {'positive': positive, 'positive_row': positive_row, 'negative': negative,
                 'negative_row': negative_row}
    fresh = copy.deepcopy(arguments)
    with rule('an entropy term returns one value a row'):
        out = run(*arguments.values()).detach()
        has_shape(out, num_rows)
    with rule('a row without pairs, or without negatives, is finite'):
        is_finite(out)
    with rule('the same call gives the same output and draws no random numbers'), global_generator_rests():
        close(run(*arguments.values()).detach(), out, EXACT)
    with rule('arguments stay as they were'), untouched(**fresh):
        run(*fresh.values())
    with rule("a row's value depends on its own pairs alone"):
        for row in range(num_rows):
            own = [value[index == row] for value, index in ((positive, positive_row), (negative, negative_row))]
            alone = run(own[0], torch.zeros_like(own[0]).long(), own[1], torch.zeros_like(own[1]).long(), size=1)
            close(alone.detach(), out[row:row + 1])
    with rule('the order of the pairs does not matter'):
        close(run(*(value.flip(0) for value in arguments.values())).detach(), out)
    with rule('gradients reach the scores'):
        named = [(name, arguments[name].clone().requires_grad_())
                 for name in (('positive', 'negative') if term.needs_negatives else ('positive',))]
        reach(named, run(*{**arguments, **dict(named)}.values()))
    with rule('it does not fall where observed scores rise and those of negatives fall'):
        better = run(positive + 1, positive_row, negative - 1, negative_row).detach()
        assert bool((better >= out - 1e-9).all()), f'from {out.tolist()} to {better.tolist()}'
    for dtype in (torch.float64, torch.float32):
        with rule('extreme scores give finite values and gradients of their own type', str(dtype)):
            for high, low in product(EXTREME, EXTREME):
                ends = [torch.full_like(value, end, dtype=dtype).requires_grad_()
                        for value, end in ((positive, high), (negative, low))]
                far = run(ends[0], positive_row, ends[1], negative_row)
                assert far.dtype == dtype, f'the output is {far.dtype}'
                is_finite(far)
                for grad in gradients(far, ends):
                    is_finite(grad, 'a gradient')
