"""Contract suites: one call checks a part of your own against every rule that ours obey.

A suite takes a function that makes the part, feeds it small data full of corner cases, and raises ``AssertionError``
with the first rule that is broken and what was seen. Suites run on the CPU, in float64 unless a rule says otherwise,
in seconds, and leave torch's global generator and default type as they found them.
"""
from __future__ import annotations

import copy
import warnings
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple, Union

import torch
from torch import Tensor
from torch_geometric.data import HeteroData, InMemoryDataset

from tvdiff_pyg.diffusion.timesteps import TimestepSampler
from tvdiff_pyg.evaluation import evaluate
from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn.loss import EntropyTerm
from tvdiff_pyg.retrieval import recommend
from tvdiff_pyg.sampling.base import NegativeSampler, dense_scores
from tvdiff_pyg.testing.planted import planted_blocks
from tvdiff_pyg.transforms import RATED_BY, RATES
from tvdiff_pyg.typing import Batch, Recommender

NUM_STEPS = 5
DEVIATIONS = 4.5  # standard errors that an estimate may be off, on either side
EXACT = 0.0, 0.0  # relative and absolute tolerance
TIGHT = 1e-9, 1e-9  # float64, sums in another order
SINGLE = 1e-4, 1e-5  # float32 against float64
EXTREME = (0.0, 1e4, -1e4)


@contextmanager
def _laboratory() -> Iterator[None]:
    """Compute in float64 from a fixed seed, and give torch's global state back as it was."""
    with torch.random.fork_rng(devices=[]), _default_dtype(torch.float64):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would seed a GPU's generator too
        yield


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _rule(rule: str, case: str = '') -> Iterator[None]:
    """Name the rule, and the case, in whatever goes wrong inside."""
    try:
        yield
    except Exception as error:
        seen = str(error) if isinstance(error, AssertionError) else f'{type(error).__name__}: {error}'
        raise AssertionError(f"{rule}{f' ({case})' if case else ''}: {seen}") from error


@contextmanager
def _global_generator_rests() -> Iterator[None]:
    before = torch.get_rng_state()
    yield
    assert torch.equal(before, torch.get_rng_state()), "torch's global generator was drawn from"


@contextmanager
def _untouched(**arguments: Tensor) -> Iterator[None]:
    before = {name: value.detach().to_dense().clone() for name, value in arguments.items()}
    yield
    for name, value in arguments.items():
        assert torch.equal(before[name], value.detach().to_dense()), f"'{name}' was written to"


def _close(actual: Any, expected: Any, tolerance: Tuple[float, float] = TIGHT) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance[0], atol=tolerance[1])


def _raises_value_error(function: Callable[[], Any]) -> None:
    try:
        function()
    except ValueError:
        return
    raise AssertionError('no ValueError was raised')


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=_generator(seed))


def _has_shape(value: Tensor, *shape: int) -> None:
    assert value.shape == shape, f'shape {list(value.shape)} instead of {list(shape)}'


def _is_finite(value: Tensor, what: str = 'the output') -> None:
    assert bool(value.isfinite().all()), f'{what} holds {value[~value.isfinite()].flatten()[:3].tolist()}'


def _shaken(module: Any) -> Any:
    """Move every weight a little, so that none is zero and hides that it is left out."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return module


def _gradients(out: Tensor, inputs: Sequence[Tensor]) -> List[Tensor]:
    """Return the dense gradients of a fixed weighting of ``out``; zeros for what does not take part."""
    if not out.requires_grad:
        return [torch.zeros_like(value) for value in inputs]
    grads = torch.autograd.grad((out * _normal(*out.shape, seed=9).to(out.dtype)).sum(), inputs, allow_unused=True)
    return [torch.zeros_like(value) if grad is None else grad.to_dense() for value, grad in zip(inputs, grads)]


def _reach(named: Sequence[Tuple[str, Tensor]], out: Tensor) -> None:
    for (name, _), grad in zip(named, _gradients(out, [value for _, value in named])):
        _is_finite(grad, f"the gradient of '{name}'")
        assert bool((grad != 0).any()), f"the gradient of '{name}' is zero"


def _check_reset(module: Any) -> None:
    if not list(module.parameters()):
        return
    drawn: List[List[Tensor]] = []
    for seed in (1, 1, 2):
        with _rule('reset_parameters draws every weight anew'):
            twin = copy.deepcopy(module)
            with torch.no_grad():
                for parameter in twin.parameters():
                    parameter.fill_(7.0)
            torch.default_generator.manual_seed(seed)
            twin.reset_parameters()
            for name, parameter in twin.named_parameters():
                assert not bool((parameter == 7.0).all()), f"'{name}' stayed as it was"
            drawn.append([parameter.detach() for parameter in twin.parameters()])
    with _rule('reset_parameters draws from torch.manual_seed alone'):
        first, same, other = drawn
        assert all(map(torch.equal, first, same)), 'the same seed gave other weights'
        assert not all(map(torch.equal, first, other)), 'another seed gave the same weights'


def _check_state_dict(make: Callable[[], Any], output: Callable[[Any], Tensor],
                      prepare: Callable[[Any], object] = _shaken) -> None:
    """Check that what ``prepare`` did to one instance reaches another by the state dict."""
    with _rule('a state dict makes another instance give the same output'):
        one, other = make(), make()
        prepare(one)
        other.load_state_dict(one.state_dict())
        _close(output(other), output(one), EXACT)


def _corner_cases() -> InteractionMatrix:
    """10 items; user 1 saw nothing, 2 everything, 3 all but item 6, 4 a single item, 5 half of them."""
    seen = [[1, 4], [], list(range(10)), [0, 1, 2, 3, 4, 5, 7, 8, 9], [9], [2, 3, 5, 6, 8]]
    pairs = [(user, item) for user, items in enumerate(seen) for item in items]
    return InteractionMatrix(torch.tensor(pairs).t(), len(seen), 10)


def _sparse_rows(num_users: int, num_items: int) -> InteractionMatrix:
    """A twentieth of all pairs, and the last user and the last item without any."""
    seen = torch.rand(num_users, num_items, generator=_generator()) < 0.05
    seen[-1], seen[:, -1] = False, False
    return InteractionMatrix(seen.nonzero().t(), num_users, num_items)


@_laboratory()
def check_conv(make: Callable[[int, int], torch.nn.Module]) -> None:
    """Check a bipartite convolution, called as ``conv((x_src, x_dst or None), edge_index or adj_t, size=...)``.

    Args:
        make: ``make(in_channels, out_channels)`` returns the layer; source and destination features have one width.

    Raises:
        AssertionError: a rule is broken.
    """
    given, fresh, size = _bipartite(), _bipartite(), (5, 4)
    x, x_dst, edge_index = (given.pop(name) for name in ('x', 'x_dst', 'edge_index'))
    conv: Any = _shaken(make(3, 6).double()).eval()

    def run(edges: Tensor, **options: Any) -> List[Tensor]:
        """Return the output and the gradients."""
        features = x.clone().requires_grad_()
        out = conv((features, None), edges, **options)
        return [out.detach(), *_gradients(out, [features, *conv.parameters()])]

    with _rule('a conv returns [V_dst, out_channels]'):
        _has_shape(conv((x, None), edge_index, size=size), 4, 6)
        _has_shape(conv((x, x_dst), edge_index), 4, 6)
    with _rule('nodes without edges give finite rows and gradients'):
        for edges in (edge_index, edge_index[:, :0]):
            for value in run(edges, size=size):
                _is_finite(value)
    expected = run(edge_index, size=size)
    with _rule('the same call gives the same output and draws no random numbers'), _global_generator_rests():
        _close(run(edge_index, size=size), expected, EXACT)
    with _rule('the order of the edges changes neither output nor gradients'):
        for seed in range(3):
            order = torch.randperm(edge_index.size(1), generator=_generator(seed))
            _close(run(edge_index[:, order], size=size), expected)
    for layout, matrix in given.items():
        with _rule('a sparse adj_t gives the output and gradients of its edge_index', layout):
            _close(run(matrix), expected)
    with _rule('inputs stay as they were'), _untouched(**fresh):
        conv((fresh['x'], fresh['x_dst']), fresh['edge_index'])
        for layout in given:
            conv((fresh['x'], None), fresh[layout])
    with _rule('size adds destinations and changes no other row'):
        out = conv((x, None), edge_index, size=(5, 7))
        _has_shape(out, 7, 6)
        _close(out[:4].detach(), expected[0])
    with _rule('a size that does not fit features or edges raises ValueError'):
        for wrong in ((4, 4), (6, 4), (5, 2)):
            _raises_value_error(lambda: conv((x, None), edge_index, size=wrong))
        for rows in (4, 6):
            _raises_value_error(lambda: conv((_normal(rows, 3), None), given['sparse CSR']))
    with _rule('gradients reach the source features and every weight'):
        named = [('x', x.clone().requires_grad_()), *conv.named_parameters()]
        _reach(named, conv((named[0][1], x_dst), edge_index))
    with _rule('float32 stays float32 and close to float64'), _default_dtype(torch.float32):
        out = copy.deepcopy(conv).float()((x.float(), None), edge_index, size=size).detach()
        assert out.dtype == torch.float32, f'the output is {out.dtype}'
        _close(out.double(), expected[0], SINGLE)
    with _rule('repr names the class'):
        assert type(conv).__name__ in repr(conv), repr(conv)
    _check_reset(conv)
    _check_state_dict(lambda: make(3, 6).double().eval(), lambda made: made((x, None), edge_index, size=size))


def _bipartite() -> Dict[str, Tensor]:
    """Features of 5 sources and 4 destinations, of which the last have no edges, and the edges in all forms."""
    edge_index = torch.tensor([[3, 0, 0, 1, 2, 2], [0, 1, 0, 2, 2, 0]])
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='Sparse')  # torch's remarks that these layouts are young
        adj_t = torch.sparse_coo_tensor(edge_index.flip(0), torch.ones(edge_index.size(1)), (4, 5)).coalesce()
        return {'x': _normal(5, 3), 'x_dst': _normal(4, 3, seed=1), 'edge_index': edge_index, 'sparse COO': adj_t,
                'sparse CSR': adj_t.to_sparse_csr(), 'sparse CSC': adj_t.to_sparse_csc()}


@_laboratory()
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
    observed = _sparse_rows(30, 20)
    num_users, num_items = observed.num_users, observed.num_items
    denoiser: Any = _shaken(make(num_users, num_items).double()).eval()
    with _rule('a denoiser tells its sizes, its input layer, its dropout and its graph layer'):
        sizes = denoiser.num_users, denoiser.num_items, denoiser.item_weight.size(0)
        assert sizes == (num_users, num_items, num_items), f'num_users, num_items, rows of item_weight = {sizes}'
        assert 0 <= denoiser.dropout < 1, f'dropout = {denoiser.dropout}'
        assert denoiser.conv is None or len(denoiser.widths) >= 1, f'widths = {denoiser.widths}'
        graph = None if denoiser.conv is None else denoiser.conv.prepare(observed.adj_t())
    named = list(denoiser.named_parameters())
    weights = [weight for _, weight in named]
    x, t = _normal(6, num_items), torch.arange(6) % NUM_STEPS

    with _rule('items are finite codes [N, d], the same whichever way the graph is given'):
        table = denoiser.items(graph).detach()
        _has_shape(table, num_items, table.size(-1))
        _is_finite(table)
        order = torch.randperm(observed.num_interactions, generator=_generator())
        for edges in (observed.edge_index, observed.edge_index[:, order], observed.adj_t()):
            _close(denoiser.items(edges).detach(), table)
    with _rule('items(graph, index) are the rows of these items, with their gradients, sparse or not'):
        index = torch.tensor([4, num_items - 1, 0])
        expected = _gradients(denoiser.items(graph)[index], weights)
        for sparse_grad in (False, True):
            rows = denoiser.items(graph, index, sparse_grad)
            _close(rows.detach(), table[index])
            _close(_gradients(rows, weights), expected)

    with _rule('in evaluation, the same call gives the same output and draws no random numbers'):
        draw = _generator()
        before = draw.get_state()
        with _global_generator_rests():
            out = denoiser(x, t, table, draw).detach()
            _close(denoiser(x, t, table, draw).detach(), out, EXACT)
        assert torch.equal(draw.get_state(), before), 'the generator was drawn from'
    with _rule('encode(x) is x @ item_weight in evaluation'):
        _close(denoiser.encode(x), x @ denoiser.item_weight)
    with _rule('forward is code(encode(x), t) @ items.t()'):
        _close((denoiser.code(denoiser.encode(x), t) @ table.t()).detach(), out)
    with _rule('code takes one step for all rows'):
        z = denoiser.encode(x)
        _close(denoiser.code(z, t[3:4]), denoiser.code(z, t[3:4].expand(6)))
    with _rule('a row does not depend on the rest of the batch'):
        for size in (1, 4):
            parts = zip(x.split(size), t.split(size))
            _close(torch.cat([denoiser(*part, table) for part in parts]).detach(), out)
    with _rule('inputs stay as they were'):
        for function, arguments in ((denoiser, {'x': _normal(6, num_items, seed=1), 't': t.clone(), 'items': table}),
                                    (denoiser.encode, {'x': _normal(6, num_items, seed=1)}),
                                    (denoiser.code, {'z': denoiser.encode(x).detach(), 't': t.clone()})):
            with _untouched(**arguments):
                function(*arguments.values())
    with _rule('gradients reach every weight'):
        _reach(named, denoiser(x, t, denoiser.items(graph)))
    for dtype in (torch.float64, torch.float32):
        with _rule('extreme rows and steps give finite outputs and gradients', str(dtype)), _default_dtype(dtype):
            twin = copy.deepcopy(denoiser).to(dtype)
            for value, step in product(EXTREME, (0, 10_000)):
                far = twin(torch.full((2, num_items), value), torch.full((2,), step), twin.items(graph))
                _is_finite(far)
                for grad in _gradients(far, list(twin.parameters())):
                    _is_finite(grad, 'a gradient')
    with _rule('float32 stays float32 and close to float64'), _default_dtype(torch.float32):
        twin = copy.deepcopy(denoiser).float()
        single = twin(x.float(), t, twin.items(graph)).detach()
        assert single.dtype == torch.float32, f'the output is {single.dtype}'
        _close(single.double(), out, SINGLE)
    _check_dropout(denoiser.train(), x, t, table)
    _check_reset(denoiser)
    _check_state_dict(lambda: make(num_users, num_items).double().eval(),
                      lambda made: made(x, t, made.items(graph)))


def _check_dropout(denoiser: Any, x: Tensor, t: Tensor, table: Tensor) -> None:
    p = denoiser.dropout
    with _rule('in training, dropout is drawn from the generator alone'), _global_generator_rests():
        first, same, other = (denoiser(x, t, table, _generator(seed)) for seed in (1, 1, 2))
        assert torch.equal(first, same), 'the same seed gave another output'
        assert torch.equal(first, other) == (p == 0), f'two seeds gave {"one output" if p else "two"} at dropout {p}'
    with _rule('in training, encode drops each entry of x with probability dropout and scales up the others'):
        weight = denoiser.item_weight.detach()[:, :3]
        row = x[0]
        z = denoiser.encode(row.repeat(4000, 1), _generator()).detach()[:, :3] - row @ weight
        variance = (row.square() * p / (1 - p)).unsqueeze(1)
        _estimates(z, torch.zeros(z.size(1)))
        _estimates((z.unsqueeze(2) * z.unsqueeze(1)).flatten(1), (weight.t() @ (variance * weight)).flatten())


def _estimates(samples: Tensor, mean: Tensor) -> None:
    """Assert that independent samples ``[n, k]`` have this mean ``[k]``, two-sided."""
    error = (samples.mean(0) - mean).abs()
    bound = DEVIATIONS * samples.std(0) / samples.size(0) ** 0.5 + 1e-9
    assert bool((error <= bound).all()), f'means {samples.mean(0).tolist()} instead of {mean.tolist()}'


@_laboratory()
def check_sampler(sampler: Union[NegativeSampler, Callable[[InteractionMatrix], NegativeSampler]]) -> None:
    """Check a sampler of negatives; that it can draw every unobserved item is no rule, as hard negatives are a choice.

    Args:
        sampler: the sampler, or ``make(interactions)`` that returns one for given interactions.

    Raises:
        AssertionError: a rule is broken.
    """
    for interactions in (_corner_cases(), _sparse_rows(30, 200)):
        fresh = copy.deepcopy(interactions)
        module: Any = sampler if isinstance(sampler, torch.nn.Module) else sampler(interactions)
        everyone = torch.arange(interactions.num_users)
        mixed = torch.cat([everyone.flip(0), everyone[::2], everyone]).repeat(5)
        for users in (mixed, *everyone[:6].repeat_interleave(2).split(2)):
            _check_draws(module, interactions, users)
        shape = mixed.numel(), interactions.num_items
        for case, scores in {'equal scores': torch.zeros(shape), 'huge scores': 1e30 * _normal(*shape),
                             'float32 scores': _normal(*shape).float(),
                             'scores of minus infinity': torch.where(_normal(*shape) < 0, -torch.inf, 0.0)}.items():
            _check_draw(module, interactions, mixed, torch.full_like(mixed, 4), scores, case)
        with _rule('an empty batch gives no negatives'):
            none = mixed[:0]
            row, item = _draw(module, interactions, none, none, torch.zeros(0, interactions.num_items))
            assert row.numel() == item.numel() == 0, f'{row.numel()} rows and {item.numel()} items'

        wanted, scores, t = interactions.user_degree[mixed], _normal(*shape), torch.arange(mixed.numel()) % NUM_STEPS
        with _rule('arguments stay as they were'), _untouched(
                users=mixed, num_negatives=wanted, scores=scores, t=t, **dict(fresh.named_buffers())):
            module(fresh, mixed, wanted, dense_scores(scores), t, NUM_STEPS, _generator())
        with _rule('the same generator seed gives the same draw'):
            first, same = (torch.stack(_draw(module, interactions, mixed, wanted, scores)) for _ in range(2))
            assert torch.equal(first, same), f'{int((first != same).any(0).sum())} of {first.size(1)} pairs differ'
        with _rule('all randomness comes from the generator'), _global_generator_rests():
            _draw(module, interactions, mixed, wanted, scores)


def _draw(sampler: NegativeSampler, interactions: InteractionMatrix, users: Tensor, wanted: Tensor,
          scores: Tensor) -> Tuple[Tensor, Tensor]:
    t = torch.arange(users.numel()) % NUM_STEPS
    users, wanted, scores = users.clone(), wanted.clone(), scores.clone()  # that nobody writes to them is its own rule
    return sampler(interactions, users, wanted, dense_scores(scores), t, NUM_STEPS, _generator())


def _check_draws(sampler: NegativeSampler, interactions: InteractionMatrix, users: Tensor) -> None:
    seen, num_items = interactions.user_degree[users], interactions.num_items
    scores = _normal(users.numel(), num_items)
    whose = f'user {int(users[0])}, who saw {int(seen[0])} of {num_items}' if users.numel() == 2 else 'all users'
    for number, wanted in {'as many as seen': seen, 'all': torch.full_like(seen, num_items + 5),
                           'none': torch.zeros_like(seen), 'one': torch.ones_like(seen),
                           'three': torch.full_like(seen, 3), '0 to 4': torch.arange(seen.numel()) % 5}.items():
        _check_draw(sampler, interactions, users, wanted, scores, f'{number} for {whose}')


def _check_draw(sampler: NegativeSampler, interactions: InteractionMatrix, users: Tensor, wanted: Tensor,
                scores: Tensor, case: str) -> None:
    num_items = interactions.num_items
    with _rule('a sampler returns two index vectors of one length', case):
        row, item = _draw(sampler, interactions, users, wanted, scores)
        assert row.dtype == item.dtype == torch.long, f'types {row.dtype} and {item.dtype}'
        assert row.dim() == 1 and row.shape == item.shape, f'shapes {list(row.shape)} and {list(item.shape)}'
    with _rule('rows and items lie in range', case):
        for index, size in ((row, users.numel()), (item, num_items)):
            bad = index[(index < 0) | (index >= size)]
            assert bad.numel() == 0, f'{int(bad[0]) if bad.numel() else None} is not in 0..{size - 1}'
    with _rule('negatives are sorted by row', case):
        assert torch.equal(row, row.sort().values), f'rows {row[:20].tolist()} ...'
    with _rule('an observed item is never drawn', case):
        bad = interactions.contains(users[row], item).nonzero().view(-1)
        assert bad.numel() == 0, f'user {int(users[row[bad[0]]])} got item {int(item[bad[0]])}'
    with _rule('no item is drawn twice in a row of the batch', case):
        key, count = (row * num_items + item).unique(return_counts=True)
        bad = key[count > 1]
        assert bad.numel() == 0, f'row {int(bad[0]) // num_items} got item {int(bad[0]) % num_items} twice'
    with _rule('a row gets as many as asked for, up to what its user has not seen', case):
        got, right = row.bincount(minlength=users.numel()), wanted.minimum(num_items - interactions.user_degree[users])
        bad = (got != right).nonzero().view(-1)
        assert bad.numel() == 0, f'row {int(bad[0])} got {int(got[bad[0]])} instead of {int(right[bad[0]])}'


@_laboratory()
def check_entropy(make: Callable[[], EntropyTerm]) -> None:
    """Check an entropy term of the free energy.

    Args:
        make: returns the term; its class, where that takes no arguments.

    Raises:
        AssertionError: a rule is broken.
    """
    term = make()
    num_rows, num_items = 4, 7
    # Row 1 has no pairs and row 2 no negatives; a pairwise term has a positive in every row.
    positive_row = torch.arange(num_rows) if term.pairwise else torch.tensor([0, 0, 2, 2, 2, 3])
    negative_row = torch.tensor([0, 1, 3] if term.pairwise else [0, 0, 3])
    positive, negative = _normal(positive_row.numel()), _normal(negative_row.numel(), seed=1)

    def run(p: Tensor, p_row: Tensor, n: Tensor, n_row: Tensor, *, size: int = num_rows) -> Tensor:
        return term(p, p_row, *((n, n_row) if term.needs_negatives else (None, None)), size, num_items)

    arguments = {'positive': positive, 'positive_row': positive_row, 'negative': negative,
                 'negative_row': negative_row}
    fresh = copy.deepcopy(arguments)
    with _rule('an entropy term returns one value a row'):
        out = run(*arguments.values()).detach()
        _has_shape(out, num_rows)
    with _rule('a row without pairs, or without negatives, is finite'):
        _is_finite(out)
    with _rule('the same call gives the same output and draws no random numbers'), _global_generator_rests():
        _close(run(*arguments.values()).detach(), out, EXACT)
    with _rule('arguments stay as they were'), _untouched(**fresh):
        run(*fresh.values())
    with _rule("a row's value depends on its own pairs alone"):
        for row in range(num_rows):
            own = [value[index == row] for value, index in ((positive, positive_row), (negative, negative_row))]
            alone = run(own[0], torch.zeros_like(own[0]).long(), own[1], torch.zeros_like(own[1]).long(), size=1)
            _close(alone.detach(), out[row:row + 1])
    with _rule('the order of the pairs does not matter'):
        _close(run(*(value.flip(0) for value in arguments.values())).detach(), out)
    with _rule('gradients reach the scores'):
        named = [(name, arguments[name].clone().requires_grad_())
                 for name in (('positive', 'negative') if term.needs_negatives else ('positive',))]
        _reach(named, run(*{**arguments, **dict(named)}.values()))
    for dtype in (torch.float64, torch.float32):
        with _rule('extreme scores give finite values and gradients of their own type', str(dtype)):
            for high, low in product(EXTREME, EXTREME):
                ends = [torch.full_like(value, end, dtype=dtype).requires_grad_()
                        for value, end in ((positive, high), (negative, low))]
                far = run(ends[0], positive_row, ends[1], negative_row)
                assert far.dtype == dtype, f'the output is {far.dtype}'
                _is_finite(far)
                for grad in _gradients(far, ends):
                    _is_finite(grad, 'a gradient')


@_laboratory()
def check_timesteps(make: Callable[[int], TimestepSampler]) -> None:
    """Check how steps are drawn in training.

    Args:
        make: ``make(num_steps)`` returns the sampler of steps.

    Raises:
        AssertionError: a rule is broken.
    """
    with _rule('a number of steps below 1 raises ValueError'):
        _raises_value_error(lambda: make(0))
    with _rule('num_steps is what was asked for'):
        for num_steps in (1, NUM_STEPS):
            assert make(num_steps).num_steps == num_steps, f'{make(num_steps).num_steps} instead of {num_steps}'

    def learn(sampler: TimestepSampler, losses: Tensor) -> None:
        t = torch.arange(sampler.num_steps).repeat(50)
        loss = losses.repeat(50).requires_grad_()
        with _rule('update leaves its arguments as they were'), _untouched(t=t, loss=loss):
            sampler.update(t, loss)

    for num_steps in (1, NUM_STEPS):
        sampler = make(num_steps)
        _check_steps(sampler, f'{num_steps} steps, before any loss')
        with _rule('an empty batch gives no steps', f'{num_steps} steps'):
            assert [part.numel() for part in sampler(0, 'cpu', _generator())] == [0, 0], 'some were drawn'
        learn(sampler, torch.arange(1.0, num_steps + 1))
        _check_steps(sampler, f'{num_steps} steps, after losses')
        learn(sampler, torch.zeros(num_steps))
        _check_steps(sampler, f'{num_steps} steps, after losses of zero')
    _check_state_dict(lambda: make(NUM_STEPS), lambda made: torch.cat(made(100, generator=_generator())),
                      lambda made: learn(made, torch.arange(1.0, NUM_STEPS + 1)))


def _check_steps(sampler: TimestepSampler, case: str) -> None:
    size = 20_000
    with _rule('steps are [B] integers in 0..T-1', case):
        t, weight = sampler(size, 'cpu', _generator())
        assert t.shape == (size,) and t.dtype == torch.long, f'{t.dtype} of shape {list(t.shape)}'
        assert 0 <= int(t.min()) <= int(t.max()) < sampler.num_steps, f'{int(t.min())}..{int(t.max())}'
    with _rule('weights are [B] finite numbers above 0 that hold no graph', case):
        _has_shape(weight, size)
        _is_finite(weight)
        assert float(weight.detach().min()) > 0, f'the smallest is {float(weight.detach().min())}'
        assert not weight.requires_grad, 'they hold the graph of a loss'
    with _rule('the same generator seed gives the same steps and weights', case):
        for one, other in zip(sampler(size, 'cpu', _generator()), (t, weight)):
            assert torch.equal(one, other), f'{int((one != other).sum())} of {size} differ'
    with _rule('all randomness comes from the generator', case), _global_generator_rests():
        sampler(size, generator=_generator())
    with _rule('weights keep the mean over the steps unbiased', case):
        _estimates(weight.unsqueeze(1) * torch.nn.functional.one_hot(t, sampler.num_steps),
                   torch.full((sampler.num_steps,), 1 / sampler.num_steps))


@_laboratory()
def check_model(make: Callable[[InteractionMatrix], Any], pairwise: bool = False, personalized: bool = True,
                num_steps: int = 200, lr: float = 1e-2) -> None:
    """Check a :class:`~tvdiff_pyg.typing.Recommender`, and its training where it has a ``training_loss``.

    That a user out of range raises is no rule: :func:`~tvdiff_pyg.retrieval.recommend` checks for all models.

    Args:
        make: ``make(interactions)`` returns the model, fitted unless it has a ``training_loss``; its weights are drawn
            by torch's global generator.
        pairwise: whether it trains on pairs of a user and an item instead of users.
        personalized: whether it can find out what a user's neighbours like: if so, it must rank the held-out items of
            :func:`~tvdiff_pyg.testing.planted_blocks` first.
        num_steps: number of steps of Adam, on all users or 64 pairs, after which it must.
        lr: their learning rate.

    Raises:
        AssertionError: a rule is broken.
    """
    interactions = _corner_cases()
    model = make(interactions)
    modules = list(model.modules()) if isinstance(model, torch.nn.Module) else []
    trains = hasattr(model, 'training_loss')
    with _rule('num_users and num_items are those of the interactions'):
        sizes = model.num_users, model.num_items
        assert sizes == (interactions.num_users, interactions.num_items), f'{sizes} for {interactions}'
    if trains:
        _check_training_loss(model, _batches(interactions, pairwise))
    with _rule('scoring changes neither users nor interactions nor weights'):
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())} if modules else {}
        users = torch.arange(interactions.num_users)
        with _untouched(users=users, **dict(interactions.named_buffers()), **tensors):
            model.scorer()(users)
    _check_scorer(model, modules, interactions)
    if trains:
        with _rule('scorer() follows the weights'):
            _train(model, interactions, pairwise, 1, lr)
            twin = make(interactions)
            twin.load_state_dict(model.state_dict())
            _close(_scores(model), _scores(twin), EXACT)
    if modules:
        _check_state_dict(lambda: make(interactions), _scores)
        with _rule('a deep copy gives the same scores'):
            _close(_scores(copy.deepcopy(model)), _scores(model), EXACT)
    if personalized:
        _check_planted(make, pairwise, num_steps if trains else 0, lr)


def _scores(model: Recommender) -> Tensor:
    return model.scorer()(torch.arange(model.num_users))


def _batches(interactions: InteractionMatrix, pairwise: bool, size: int = 64) -> Iterator[Batch]:
    """Yield batches of all users, in a random order, or of random pairs, for ever."""
    users, items = interactions.edge_index
    draw = _generator()
    while True:
        if pairwise:
            index = torch.randint(users.numel(), (size,), generator=draw)
            yield Batch(users[index], items[index])
        else:
            yield Batch(torch.randperm(interactions.num_users, generator=draw))


def _train(model: Any, interactions: InteractionMatrix, pairwise: bool, num_steps: int, lr: float) -> None:
    optimizer, draw = torch.optim.Adam(model.parameters(), lr), _generator()
    for _, batch in zip(range(num_steps), _batches(interactions, pairwise)):
        optimizer.zero_grad()
        model.training_loss(batch, draw).loss.backward()
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad = parameter.grad.to_dense()  # Adam takes no sparse gradients
        optimizer.step()


def _check_training_loss(model: Any, batches: Iterator[Batch]) -> None:
    batch = next(batches)
    with _rule('training_loss returns finite scalars, of which the loss alone holds a graph'):
        terms = copy.deepcopy(model).training_loss(batch, _generator())
        for name, value in terms._asdict().items():
            assert value.dim() == 0, f"'{name}' has shape {list(value.shape)}"
            _is_finite(value, f"'{name}'")
            assert value.requires_grad == (name == 'loss'), f"'{name}' has requires_grad {value.requires_grad}"
    with _rule('gradients reach every weight'):
        twin = copy.deepcopy(model)
        _reach(list(twin.named_parameters()), twin.training_loss(batch, _generator()).loss)
    with _rule('the same generator seed gives the same loss and gradients'):
        runs = []
        for twin in (copy.deepcopy(model), copy.deepcopy(model)):
            loss = twin.training_loss(batch, _generator()).loss
            runs.append([loss.detach(), *_gradients(loss, list(twin.parameters()))])
        _close(runs[0], runs[1], EXACT)
    with _rule('all randomness comes from the generator'), _global_generator_rests():
        copy.deepcopy(model).training_loss(batch, _generator())
    fresh = next(batches)
    with _rule('the batch stays as it was'), _untouched(
            **{name: value for name, value in fresh._asdict().items() if value is not None}):
        model.training_loss(fresh, _generator())


def _check_scorer(model: Any, modules: List[torch.nn.Module], interactions: InteractionMatrix) -> None:
    users, num_items = torch.arange(interactions.num_users), interactions.num_items
    with _rule('scorer() and its scores leave every module in the mode it was in'):
        for period in (len(modules) + 1, 2, 1):  # the first in training mode, every other, all of them
            modes = [k % period == 0 for k in range(len(modules))]
            for part, mode in zip(modules, modes):
                part.training = mode
            score = model.scorer()
            assert [part.training for part in modules] == modes, f'scorer() changed {modes}'
            score(users)
            assert [part.training for part in modules] == modes, f'scoring changed {modes}'
    with _rule('scores are finite floating-point numbers [B, N]'):
        scores = model.scorer()(users)
        _has_shape(scores, users.numel(), num_items)
        assert scores.is_floating_point(), f'they are {scores.dtype}'
        _is_finite(scores)
    with _rule('scores hold no graph'):
        assert not scores.requires_grad, 'they require a gradient'
    with _rule('the same call gives the same scores and draws no random numbers'), _global_generator_rests():
        score = model.scorer()
        for again in (score(users), score(users)):
            _close(again, scores, EXACT)
    with _rule('scores are those of evaluation mode'):
        for part in modules:
            part.training = False
        _close(_scores(model), scores, EXACT)
    with _rule("a user's scores do not depend on the rest of the batch"):
        for batch in (*users.split(1), users.flip(0), users[:2], users[[0, 0, 1]]):
            _close(score(batch), scores[batch])
    with _rule('a batch may be empty'):
        _has_shape(score(users[:0]), 0, num_items)
    with _rule('writing into scores changes no later ones'):
        score(users).fill_(-torch.inf)
        score(users)[0] = torch.inf
        _close(score(users), scores, EXACT)
        one = score(users)
        one[0] = torch.inf
        _close(one[1:], scores[1:], EXACT)
    with _rule('recommend lists every unseen item and no seen one'):
        many = users.repeat(30)  # more than a block
        best = recommend(model, many, num_items, [interactions])
        listed = best.scores > -torch.inf
        seen = interactions.contains(many.unsqueeze(1), best.items) & listed
        assert not bool(seen.any()), f'user {int(many[seen.any(1)][0])} got item {int(best.items[seen][0])}'
        number, right = listed.sum(1), num_items - interactions.user_degree[many]
        assert torch.equal(number, right), f'{number[:users.numel()].tolist()} instead of {right.tolist()}'


def _check_planted(make: Callable[[InteractionMatrix], Any], pairwise: bool, num_steps: int, lr: float) -> None:
    data = planted_blocks(generator=_generator())
    interactions = InteractionMatrix(*data[:3])
    model = make(interactions)
    with _rule('a model that has trained ranks the held-out items of planted blocks first'):
        if num_steps:
            _train(model, interactions, pairwise, num_steps, lr)
        user = torch.arange(data.num_users).repeat_interleave(data.held_out.size(1))
        held_out = InteractionMatrix(torch.stack([user, data.held_out.view(-1)]), *data[1:3])
        recall = evaluate(model, held_out, [interactions], [data.held_out.size(1)]).per_user
        found = next(iter(recall.values()))
        assert bool((found == 1).all()), f'for {int((found == 1).sum())} of {found.numel()} users'


@_laboratory()
def check_dataset(make: Callable[[], InMemoryDataset]) -> None:
    """Check a data set: one interaction graph, as :func:`~tvdiff_pyg.datasets.interaction_data` builds it.

    Args:
        make: loads the data set anew at every call.

    Raises:
        AssertionError: a rule is broken.
    """
    dataset = make()
    with _rule('a data set holds one HeteroData'):
        assert len(dataset) == 1 and isinstance(dataset[0], HeteroData), f'{len(dataset)} x {type(dataset[0]).__name__}'
    data: Any = dataset[0]
    sizes = data['user'].num_nodes, data['item'].num_nodes
    with _rule('ids are distinct texts, one a node'):
        for ids, size in zip((data.user_id, data.item_id), sizes):
            assert len(ids) == len(set(ids)) == size, f'{len(ids)} ids, {len(set(ids))} distinct, {size} nodes'
            assert all(isinstance(value, str) for value in ids), f'some are no text: {ids[:3]}'
    parts = {name: data[RATES][name] for name in ('edge_index', 'val_edge_label_index', 'edge_label_index')
             if name in data[RATES]}
    for name, index in parts.items():
        with _rule('pairs are integers [2, E] in range', name):
            InteractionMatrix(index, *sizes)
    with _rule('no pair occurs twice, in one part or in two'):
        key = torch.cat([user * sizes[1] + item for user, item in parts.values()])
        assert key.unique().numel() == key.numel(), f'{key.numel() - key.unique().numel()} times'
    with _rule('every user and every item has a training pair'):
        for index, size in zip(data[RATES].edge_index, sizes):
            assert index.unique().numel() == size, f'{index.unique().numel()} of {size} have'
    with _rule('the reverse edges are the training pairs flipped'):
        assert torch.equal(data[RATED_BY].edge_index, data[RATES].edge_index.flip(0)), 'they are others'
    with _rule('name and checksum tell the data apart'):
        assert data.name and isinstance(data.name, str), f'name = {data.name!r}'
        assert len(data.checksum) == 64 and int(data.checksum, 16) >= 0, f'checksum = {data.checksum!r}, no SHA-256'
    with _rule('loading again gives the same graph'):
        again: Any = make()[0]
        for name, index in parts.items():
            assert torch.equal(again[RATES][name], index), f"'{name}' is another"
        for name in ('user_id', 'item_id', 'name', 'checksum'):
            assert again[name] == data[name], f"'{name}' is another"
    with _rule('loading again writes nothing'):
        before = _files(dataset)
        make()
        assert _files(dataset) == before, f'{sorted(set(_files(dataset)) ^ set(before))[:3]}'


def _files(dataset: InMemoryDataset) -> List[Tuple[str, int, int]]:
    return sorted((str(path), path.stat().st_mtime_ns, path.stat().st_size)
                  for folder in (dataset.raw_dir, dataset.processed_dir) for path in Path(folder).rglob('*'))
