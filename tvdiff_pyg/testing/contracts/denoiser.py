"""The contract of a denoiser."""
from __future__ import annotations

import copy
from itertools import product
from typing import Any, Callable

import torch
from torch import Tensor

from tvdiff_pyg.testing.contracts.common import (
    EXACT,
    EXTREME,
    NUM_STEPS,
    SINGLE,
    check_reset,
    check_state_dict,
    close,
    default_dtype,
    estimates,
    generator,
    global_generator_rests,
    gradients,
    has_shape,
    is_finite,
    laboratory,
    normal,
    reach,
    rule,
    shaken,
    sparse_rows,
    untouched,
)


@laboratory()
def check_denoiser(make: Callable[[int, int], torch.nn.Module]) -> None:
    """Check a denoiser of the form ``code(x W, t) @ items^T``, as :class:`~tvdiff_pyg.nn.TVDiff` uses it.

    It has the methods of :class:`~tvdiff_pyg.nn.AnisotropicDenoiser` and its attributes ``num_users``, ``num_items``,
    ``item_weight`` (W), ``dropout``, ``conv`` (a layer with ``prepare``, or ``None`` where there is no graph) and, with
    a ``conv``, ``widths``.

    Args:
        make: ``make(num_users, num_items)`` returns the denoiser.

    Raises:
        AssertionError: a rule is broken.
    """
    observed = sparse_rows(30, 20)
    num_users, num_items = observed.num_users, observed.num_items
    denoiser: Any = shaken(make(num_users, num_items).double()).eval()
    with rule('a denoiser tells its sizes, its input layer, its dropout and its graph layer'):
        sizes = denoiser.num_users, denoiser.num_items, denoiser.item_weight.size(0)
        assert sizes == (num_users, num_items, num_items), f'num_users, num_items, rows of item_weight = {sizes}'
        assert 0 <= denoiser.dropout < 1, f'dropout = {denoiser.dropout}'
        assert denoiser.conv is None or len(denoiser.widths) >= 1, f'widths = {denoiser.widths}'
        graph = None if denoiser.conv is None else denoiser.conv.prepare(observed.adj_t())
    named = list(denoiser.named_parameters())
    weights = [weight for _, weight in named]
    x, t = normal(6, num_items), torch.arange(6) % NUM_STEPS

    with rule('items are finite codes [N, d], the same whichever way the graph is given'):
        table = denoiser.items(graph).detach()
        has_shape(table, num_items, table.size(-1))
        is_finite(table)
        order = torch.randperm(observed.num_interactions, generator=generator())
        for edges in (observed.edge_index, observed.edge_index[:, order], observed.adj_t()):
            close(denoiser.items(edges).detach(), table)
    with rule('items(graph, index) are the rows of these items, with their gradients, sparse or not'):
        index = torch.tensor([4, num_items - 1, 0])
        expected = gradients(denoiser.items(graph)[index], weights)
        for sparse_grad in (False, True):
            rows = denoiser.items(graph, index, sparse_grad)
            close(rows.detach(), table[index])
            close(gradients(rows, weights), expected)

    with rule('in evaluation, the same call gives the same output and draws no random numbers'):
        draw = generator()
        before = draw.get_state()
        with global_generator_rests():
            out = denoiser(x, t, table, draw).detach()
            close(denoiser(x, t, table, draw).detach(), out, EXACT)
        assert torch.equal(draw.get_state(), before), 'the generator was drawn from'
    with rule('encode(x) is x @ item_weight in evaluation'):
        close(denoiser.encode(x), x @ denoiser.item_weight)
    with rule('forward is code(encode(x), t) @ items.t()'):
        close((denoiser.code(denoiser.encode(x), t) @ table.t()).detach(), out)
    with rule('code takes one step for all rows'):
        z = denoiser.encode(x)
        close(denoiser.code(z, t[3:4]), denoiser.code(z, t[3:4].expand(6)))
    with rule('a row does not depend on the rest of the batch'):
        for size in (1, 4):
            parts = zip(x.split(size), t.split(size))
            close(torch.cat([denoiser(*part, table) for part in parts]).detach(), out)
    with rule('inputs stay as they were'):
        for function, arguments in ((denoiser, {'x': normal(6, num_items, seed=1), 't': t.clone(), 'items': table}),
                                    (denoiser.encode, {'x': normal(6, num_items, seed=1)}),
                                    (denoiser.code, {'z': denoiser.encode(x).detach(), 't': t.clone()})):
            with untouched(**arguments):
                function(*arguments.values())
    with rule('gradients reach every weight'):
        reach(named, denoiser(x, t, denoiser.items(graph)))
    for dtype in (torch.float64, torch.float32):
        with rule('extreme rows and steps give finite outputs and gradients', str(dtype)), default_dtype(dtype):
            twin = copy.deepcopy(denoiser).to(dtype)
            for value, step in product(EXTREME, (0, 10_000)):
                far = twin(torch.full((2, num_items), value), torch.full((2,), step), twin.items(graph))
                is_finite(far)
                for grad in gradients(far, list(twin.parameters())):
                    is_finite(grad, 'a gradient')
    with rule('float32 stays float32 and close to float64'), default_dtype(torch.float32):
        twin = copy.deepcopy(denoiser).float()
        single = twin(x.float(), t, twin.items(graph)).detach()
        assert single.dtype == torch.float32, f'the output is {single.dtype}'
        close(single.double(), out, SINGLE)
    _check_dropout(denoiser.train(), x, t, table)
    check_reset(denoiser)
    check_state_dict(lambda: make(num_users, num_items).double().eval(),
                     lambda made: made(x, t, made.items(graph)))


def _check_dropout(denoiser: Any, x: Tensor, t: Tensor, table: Tensor) -> None:
    p = denoiser.dropout
    with rule('in training, dropout is drawn from the generator alone'), global_generator_rests():
        first, same, other = (denoiser(x, t, table, generator(seed)) for seed in (1, 1, 2))
        assert torch.equal(first, same), 'the same seed gave another output'
        assert torch.equal(first, other) == (p == 0), f'two seeds gave {"one output" if p else "two"} at dropout {p}'
    with rule('in training, encode drops each entry of x with probability dropout and scales up the others'):
        weight = denoiser.item_weight.detach()[:, :3]
        row = x[0]
        z = denoiser.encode(row.repeat(4000, 1), generator()).detach()[:, :3] - row @ weight
        variance = (row.square() * p / (1 - p)).unsqueeze(1)
        estimates(z, torch.zeros(z.size(1)))
        estimates((z.unsqueeze(2) * z.unsqueeze(1)).flatten(1), (weight.t() @ (variance * weight)).flatten())
