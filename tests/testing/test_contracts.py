"""The contract suites: ours pass, a trivial part of one's own passes and runs, and every rule catches a broken part."""
from __future__ import annotations

import itertools
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch_geometric.data import InMemoryDataset
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.inits import glorot
from torch_geometric.utils import is_torch_sparse_tensor

from tvdiff_pyg import evaluation, retrieval
from tvdiff_pyg.datasets import InteractionDataset, InteractionFile
from tvdiff_pyg.diffusion import (
    GaussianDiffusion,
    LossHistoryTimesteps,
    NoiseSchedule,
    TimestepSampler,
    UniformTimesteps,
)
from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn import (
    EASE,
    AnisotropicDenoiser,
    BCEEntropy,
    BPREntropy,
    EntropyTerm,
    HelmholtzFreeEnergy,
    NLLEntropy,
    Popularity,
    TVDiff,
    TVDiffConv,
)
from tvdiff_pyg.nn.models.base import InteractionModel
from tvdiff_pyg.sampling import ARGumbelSampler, NegativeSampler, PopularitySampler, UniformSampler, WarmUpSampler
from tvdiff_pyg.sampling.base import top_per_row
from tvdiff_pyg.testing import (
    check_conv,
    check_dataset,
    check_denoiser,
    check_entropy,
    check_model,
    check_sampler,
    check_timesteps,
    planted_blocks,
)
from tvdiff_pyg.testing.contracts import common
from tvdiff_pyg.testing.contracts.common import corner_cases
from tvdiff_pyg.transforms import RATED_BY, RATES
from tvdiff_pyg.typing import LossTerms

SAMPLERS = [
    UniformSampler(),
    PopularitySampler(),
    PopularitySampler(-1e4),
    ARGumbelSampler(0.1, 'flat'),
    ARGumbelSampler(1.0, 'score', lam=1000.0),
    ARGumbelSampler(0.5, 'flat', pool_size=4),
    ARGumbelSampler(0.2, 'score', pool_size=1),
    WarmUpSampler(ARGumbelSampler(0.2), 1),
]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def tvdiff(engine='factored', entropy='bce', sampler=None, timesteps=None, denoiser=AnisotropicDenoiser,
           prediction='x0', dropout=0.5, temperature=0.2, **options):
    def make(interactions):
        diffusion = GaussianDiffusion(NoiseSchedule(num_steps=3), prediction)
        return TVDiff(interactions, denoiser(interactions.num_users, interactions.num_items, 8, 8, dropout=dropout),
                      diffusion, HelmholtzFreeEnergy(entropy, temperature), sampler or UniformSampler(),
                      timesteps and timesteps(3), engine, **options)
    return make


# Ours.

@pytest.mark.parametrize('normalization', ['sym', 'left', 'linkprop', 'raw'])
def test_our_conv(normalization):
    check_conv(lambda i, o: TVDiffConv(i, o, normalization))


@pytest.mark.parametrize('time_type', ['cat', 'align', 'gate'])
@pytest.mark.parametrize('normalization', ['sym', 'left', 'linkprop', 'raw', 'none'])
@pytest.mark.parametrize('widths', [4, [4, 5, 3]], ids=str)
def test_our_denoiser(time_type, normalization, widths):
    check_denoiser(lambda m, n: AnisotropicDenoiser(m, n, widths, 8, time_type, normalization))


def test_our_denoiser_without_dropout():
    check_denoiser(lambda m, n: AnisotropicDenoiser(m, n, 4, 8, dropout=0.0))


@pytest.mark.parametrize('sampler', SAMPLERS, ids=repr)
def test_our_samplers(sampler):
    check_sampler(sampler)


@pytest.mark.parametrize('term', [BCEEntropy, NLLEntropy, BPREntropy])
def test_our_entropy_terms(term):
    check_entropy(term)


@pytest.mark.parametrize('make', [UniformTimesteps, LossHistoryTimesteps, lambda t: LossHistoryTimesteps(t, 1, 0.2)])
def test_our_timesteps(make):
    check_timesteps(make)


@pytest.mark.parametrize('engine', ['factored', 'dense'])
@pytest.mark.parametrize('entropy, sampler, timesteps', [
    ('bce', UniformSampler(), None), ('bpr', ARGumbelSampler(0.5, pool_size=16), LossHistoryTimesteps)])
def test_our_tvdiff(engine, entropy, sampler, timesteps):
    check_model(tvdiff(engine, entropy, sampler, timesteps), pairwise=entropy == 'bpr')


@pytest.mark.parametrize('options', [
    dict(entropy='nll'), dict(temperature=0.0), dict(dropout=0.0, engine='dense', prediction='eps'),
    dict(energy_items=6), dict(energy_items=6, energy_rank=2), dict(energy_items=6, row_gradients=True)], ids=str)
def test_our_tvdiff_in_other_settings(options):
    check_model(tvdiff(**options), personalized=False)


def test_our_baselines():
    check_model(EASE)
    check_model(Popularity, personalized=False)


# Trivial parts of one's own.

class MeanConv(MessagePassing):
    """The mean of the transformed sources."""

    def __init__(self, in_channels, out_channels):
        super().__init__(aggr='mean')
        self.weight = torch.nn.Parameter(torch.empty(in_channels, out_channels))
        self.reset_parameters()

    def reset_parameters(self):
        super().reset_parameters()
        glorot(self.weight)

    def forward(self, x, edge_index, size=None):
        if is_torch_sparse_tensor(edge_index):
            rows, told = edge_index.size(0), size[1] if size else None if x[1] is None else x[1].size(0)
            if told not in (None, rows):
                raise ValueError(f"'edge_index' tells of {rows} destination nodes, not {told}")
            size = (edge_index.size(1), rows)
            edge_index = edge_index.to_sparse_coo().coalesce().indices().flip(0)
        size = size or (x[0].size(0), x[1].size(0))
        if size[0] != x[0].size(0) or edge_index.numel() and int(edge_index[1].max()) >= size[1]:
            raise ValueError(f"'size' {size} does not fit")
        return self.propagate(edge_index, h=(x[0] @ self.weight, None), size=size)

    def message(self, h_j):
        return h_j


class FreeTables(torch.nn.Module):
    """A denoiser of two free tables: no graph, no dropout, and a step that scales the code."""

    def __init__(self, num_users, num_items, hidden_channels=4, time_channels=8, dropout=0.0):
        super().__init__()
        self.num_users, self.num_items, self.dropout, self.conv = num_users, num_items, 0.0, None
        self.item_weight = torch.nn.Parameter(torch.empty(num_items, hidden_channels))
        self.table = torch.nn.Parameter(torch.empty(num_items, hidden_channels))
        self.slope = torch.nn.Parameter(torch.empty(hidden_channels))
        self.reset_parameters()

    def reset_parameters(self):
        for parameter in self.parameters():
            torch.nn.init.normal_(parameter, std=0.3)

    def items(self, edge_index=None, index=None, sparse_grad=False):
        return self.table if index is None else F.embedding(index, self.table, sparse=sparse_grad)

    def encode(self, x, generator=None):
        return x @ self.item_weight

    def code(self, z, t):
        return (z + self.slope / (1 + t.unsqueeze(1))).tanh()

    def forward(self, x_t, t, items, generator=None):
        return self.code(self.encode(x_t, generator), t) @ items.t()


class FirstUnobserved(NegativeSampler):
    def forward(self, interactions, users, num_negatives, scores=None, t=None, num_steps=1, generator=None):
        free = interactions.dense(users) == 0
        return (free & (free.cumsum(1) <= num_negatives.view(-1, 1))).nonzero(as_tuple=True)


class SumOfScores(EntropyTerm):
    needs_negatives = False

    def forward(self, positive, positive_row, negative, negative_row, num_rows, num_items):
        return positive.new_zeros(num_rows).index_add(0, positive_row, positive) / num_items


class Hinge(EntropyTerm):
    """A pairwise term."""

    pairwise = True

    def forward(self, positive, positive_row, negative, negative_row, num_rows, num_items):
        margin = (positive[positive_row.argsort()][negative_row] - negative).clamp(max=1)
        return positive.new_zeros(num_rows).index_add(0, negative_row, margin)


class EveryStepInTurn(TimestepSampler):
    def forward(self, batch_size, device=None, generator=None):
        return torch.arange(batch_size, device=device) % self.num_steps, torch.ones(batch_size, device=device)


class Neighbours(InteractionModel):
    """What those like who have seen the same."""

    def scorer(self):
        x = self.interactions.dense(torch.arange(self.num_users), torch.get_default_dtype())
        return lambda users: x[users] @ x.t() @ x


class Alphabetical:
    """A recommender that is no module."""

    def __init__(self, interactions):
        self.num_users, self.num_items = interactions.num_users, interactions.num_items

    def scorer(self):
        return lambda users: -torch.arange(float(self.num_items)).repeat(users.numel(), 1)


class AutoEncoder(InteractionModel):
    """Rows times a low-rank matrix, whose right factor a layer of one's own makes of user features."""

    def __init__(self, interactions):
        super().__init__(interactions)
        self.user = torch.nn.Parameter(0.3 * torch.randn(self.num_users, 8))
        self.item = torch.nn.Parameter(0.3 * torch.randn(self.num_items, 8))
        self.conv = MeanConv(8, 8)

    def table(self):
        size = (self.num_users, self.num_items)
        return self.conv((self.user, None), self.interactions.edge_index, size=size)

    def training_loss(self, batch, generator=None):
        x = self.interactions.dense(batch.users, self.user.dtype)
        noisy = x * torch.empty_like(x).bernoulli_(0.7, generator=generator)
        loss = (noisy @ self.item @ self.table().t() - x).square().mean()
        return LossTerms(loss, loss.detach(), torch.zeros(()))

    @torch.no_grad()
    def scorer(self):
        table = self.table()

        def score(users):
            with torch.no_grad():
                return self.interactions.dense(users, table.dtype) @ self.item @ table.t()

        return score


FILES = {'train.txt': 'a\tx\na\ty\nb\tx\nb\tz\nc\ty\nc\tz\n', 'test.txt': 'a\tz\nb\ty\nd\tx\n'}


class Toy(InteractionDataset):
    name = 'toy'
    files = dict.fromkeys(FILES)
    options = {'layout': 'table', 'separator': '\t', 'header': False}


@pytest.fixture
def toy(tmp_path, monkeypatch):
    upstream = tmp_path / 'upstream'
    upstream.mkdir()
    for name, text in FILES.items():
        (upstream / name).write_text(text)
    monkeypatch.setattr(Toy, 'url', upstream.as_uri(), raising=False)
    return lambda: Toy(tmp_path / 'root')


def test_a_conv_of_ones_own():
    check_conv(MeanConv)
    check_model(AutoEncoder)  # trains, ranks and recommends with it


def test_a_denoiser_of_ones_own():
    check_denoiser(FreeTables)
    check_model(tvdiff('factored', denoiser=FreeTables))
    check_model(tvdiff('dense', denoiser=FreeTables), personalized=False)
    models = {}
    for engine in ('dense', 'factored'):
        torch.manual_seed(0)
        models[engine] = tvdiff(engine, denoiser=FreeTables)(corner_cases()).double()
    users = torch.arange(6)
    torch.testing.assert_close(models['factored'].scorer()(users), models['dense'].scorer()(users))


def test_a_subclass_of_our_denoiser():
    class Sine(AnisotropicDenoiser):
        def code(self, z, t):
            return (z + self.time_code(t)).sin()

    check_denoiser(lambda m, n: Sine(m, n, 4, 8))
    check_model(tvdiff(denoiser=Sine), personalized=False)


def test_a_sampler_of_ones_own():
    check_sampler(FirstUnobserved())
    check_sampler(lambda interactions: FirstUnobserved())
    check_model(tvdiff('factored', sampler=FirstUnobserved()), personalized=False)
    check_model(tvdiff('dense', 'bpr', FirstUnobserved()), pairwise=True, personalized=False)


def test_entropy_terms_of_ones_own():
    check_entropy(SumOfScores)
    check_entropy(Hinge)
    check_model(tvdiff('factored', SumOfScores()), personalized=False)
    check_model(tvdiff('factored', Hinge()), pairwise=True, personalized=False)


def test_a_class_is_told_from_what_it_makes():
    with pytest.raises(TypeError, match=r"'sampler' is the class UniformSampler: pass UniformSampler\(...\)"):
        check_sampler(UniformSampler)
    with pytest.raises(TypeError, match="'make' is a term: pass its class, BCEEntropy"):
        check_entropy(BCEEntropy())


def test_what_a_part_raises_itself_is_told_from_a_broken_rule():
    class Raises(UniformSampler):
        def forward(self, *args, **kwargs):
            raise KeyError('mine')

    with pytest.raises(AssertionError, match="^KeyError was raised, where the rule is: a sampler returns .*: 'mine'$"):
        check_sampler(Raises())


def test_timesteps_of_ones_own():
    check_timesteps(EveryStepInTurn)
    check_model(tvdiff(timesteps=EveryStepInTurn), personalized=False)


def test_models_of_ones_own():
    check_model(Neighbours)
    check_model(Alphabetical, personalized=False)
    data = planted_blocks(generator=generator())
    matrix = InteractionMatrix(*data[:3])
    user = torch.arange(data.num_users)
    best = retrieval.recommend(Neighbours(matrix), user, 1, [matrix])
    assert torch.equal(best.items, data.held_out)
    held_out = InteractionMatrix(torch.stack([user, data.held_out.view(-1)]), *data[1:3])
    assert evaluation.evaluate(Neighbours(matrix), held_out, [matrix], [1]).mean['recall@1'] == 1
    assert evaluation.evaluate(Alphabetical(matrix), held_out, [matrix], [1]).mean['recall@1'] < 0.5


def test_a_data_set_of_ones_own(toy, tmp_path):
    check_dataset(toy)
    check_dataset(lambda: InteractionFile(tmp_path / 'upstream' / 'train.txt', test_ratio=0))
    data = toy()[0]
    train, test = (InteractionMatrix(data[RATES][part], 3, 3) for part in ('edge_index', 'edge_label_index'))
    assert evaluation.evaluate(Neighbours(train), test, [train], [1]).mean['recall@1'] == 1


# Broken parts: by suite, the rule and what breaks it.

def subclass(base, **methods):
    return type(f'Broken{base.__name__}', (base,), methods)


def with_extra(base, method='__init__'):
    """A weight that takes part in nothing."""
    def init(self, *args, **options):
        base.__init__(self, *args, **options)
        self.extra = torch.nn.Parameter(torch.ones(2))
    return subclass(base, __init__=init)


def with_hidden(base, method, size=()):
    """A random factor that the state dict does not hold."""
    def init(self, *args, **options):
        base.__init__(self, *args, **options)
        self.hidden = 1 + torch.rand(size)

    def forward(self, *args, **options):
        return getattr(base, method)(self, *args, **options) * self.hidden
    return subclass(base, **{'__init__': init, method: forward})


def reset_once(base):
    def reset(self):
        if not getattr(self, 'drawn', False):
            base.reset_parameters(self)
            self.drawn = True
    return subclass(base, reset_parameters=reset)


def reset_by_its_own_seed(base):
    def reset(self):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            base.reset_parameters(self)
    return subclass(base, reset_parameters=reset)


def conv(change):
    """A layer that changes the output, or what the good layer is called with."""
    def forward(self, x, edge_index, size=None):
        return change(lambda x=x, e=edge_index, s=size: MeanConv.forward(self, x, e, s), x, edge_index, size)
    return subclass(MeanConv, forward=forward)


def sort_in_place(good, x, e, s):
    if not is_torch_sparse_tensor(e):
        e.copy_(e[:, e[1].argsort(stable=True)])
    return good()


def drop_last_edge(good, x, e, s):
    return good() if is_torch_sparse_tensor(e) else good(e=e[:, :-1], s=s or (x[0].size(0), x[1].size(0)))


def mean_by_division(good, x, e, s):
    return good() / (good() != 0).sum(1, keepdim=True)


CONVS = [
    ('a conv returns [V_dst, out_channels]', conv(lambda good, x, e, s: good()[:, :-1])),
    ('a conv returns [V_dst, out_channels]', conv(lambda good, x, e, s: good(x=(x[0], x[1][:0])))),  # needs x_dst
    ('nodes without edges give finite rows and gradients', conv(mean_by_division)),
    ('the same call gives the same output and draws no random numbers', conv(lambda good, *_: F.dropout(good()))),
    ('the same call gives the same output and draws no random numbers',
     conv(lambda good, *_: good() + 0 * torch.rand(()))),
    ('inputs stay as they were', conv(sort_in_place)),
    ('the order of the edges changes neither output nor gradients', conv(drop_last_edge)),
    ('a sparse adj_t gives the output and gradients of its edge_index',
     conv(lambda good, x, e, s: good() * (2 if e.layout == torch.sparse_csc else 1))),
    ('size adds destinations and changes no other row',
     conv(lambda good, x, e, s: good(s=s and (s[0], min(s[1], 4))) if s != (5, 2) else good())),
    ('a size that does not fit features or edges raises ValueError',
     conv(lambda good, x, e, s: good(s=s and (x[0].size(0), s[1])))),
    ('a size that does not fit features or edges raises ValueError',
     conv(lambda good, x, e, s: good(s=None if is_torch_sparse_tensor(e) else s))),
    ('a size that does not fit features or edges raises ValueError',
     conv(lambda good, x, e, s: good(x=(x[0], None) if is_torch_sparse_tensor(e) else x))),
    ('gradients reach the source features and every weight', with_extra(MeanConv)),
    ('gradients reach the source features and every weight',
     conv(lambda good, x, e, s: good(x=(x[0].detach(), x[1])))),
    ('float32 stays float32 and close to float64', conv(lambda good, *_: good().double())),
    ('float32 stays float32 and close to float64', conv(lambda good, *_: (good() + 1e6) - 1e6)),
    ('repr names the class', subclass(MeanConv, __repr__=lambda self: 'conv')),
    ('reset_parameters draws every weight anew', reset_once(MeanConv)),
    ('reset_parameters draws from torch.manual_seed alone', reset_by_its_own_seed(MeanConv)),
    ('a state dict makes another instance give the same output', with_hidden(MeanConv, 'forward')),
]


def small(base):
    return lambda m, n: base(m, n, 4, 8)


def denoiser(**methods):
    return small(subclass(AnisotropicDenoiser, **methods))


def broken_init(**attributes):
    def init(self, *args):
        AnisotropicDenoiser.__init__(self, *args)
        for name, value in attributes.items():
            setattr(self, name, value)
    return denoiser(__init__=init)


def items_drop_an_edge(self, edge_index=None, index=None, sparse_grad=False):
    edges = edge_index[:, :-1] if isinstance(edge_index, torch.Tensor) and not edge_index.is_sparse_csr else edge_index
    return AnisotropicDenoiser.items(self, edges, index, sparse_grad)


def items_sort(self, edge_index=None, index=None, sparse_grad=False):
    return AnisotropicDenoiser.items(self, edge_index, None if index is None else index.sort().values, sparse_grad)


def items_detached(self, *args):
    return AnisotropicDenoiser.items(self, *args).detach()


def encode_clamps_in_place(self, x, generator=None):
    return AnisotropicDenoiser.encode(self, x.clamp_(min=-1), generator)


def code_wants_a_step_a_row(self, z, t):
    if t.numel() != z.size(0):
        raise ValueError('one step a row')
    return AnisotropicDenoiser.code(self, z, t)


def dropout_of_rows(self, x, generator=None):
    if self.training:
        x = x * torch.empty(x.size(0), 1).bernoulli_(0.5, generator=generator) * 2
    return x @ self.item_weight


def dropout_without_scaling(self, x, generator=None):
    if self.training:
        x = x * torch.empty_like(x).bernoulli_(0.5, generator=generator)
    return x @ self.item_weight


good_code, good_encode, good_forward = (getattr(AnisotropicDenoiser, name) for name in ('code', 'encode', 'forward'))

DENOISERS = [
    ('a denoiser tells its sizes, its input layer, its dropout and its graph layer', broken_init(num_items=3)),
    ('a denoiser tells its sizes, its input layer, its dropout and its graph layer', broken_init(dropout=None)),
    ('items are finite codes [N, d], the same whichever way the graph is given', denoiser(items=items_drop_an_edge)),
    ('items(graph, index) are the rows of these items, with their gradients, sparse or not',
     denoiser(items=items_sort)),
    ('in evaluation, the same call gives the same output and draws no random numbers',
     denoiser(encode=lambda self, x, generator=None: F.dropout(x) @ self.item_weight)),
    ('in evaluation, the same call gives the same output and draws no random numbers',
     denoiser(encode=lambda self, x, generator=None: (x + 0 * torch.rand(1, generator=generator)) @ self.item_weight)),
    ('inputs stay as they were', denoiser(encode=encode_clamps_in_place)),
    ('encode(x) is x @ item_weight in evaluation',
     denoiser(encode=lambda self, x, generator=None: good_encode(self, x, generator) + 1)),
    ('forward is code(encode(x), t) @ items.t()', denoiser(forward=lambda self, *args: 2 * good_forward(self, *args))),
    ('code takes one step for all rows', denoiser(code=code_wants_a_step_a_row)),
    ('a row does not depend on the rest of the batch',
     denoiser(code=lambda self, z, t: good_code(self, z - z.mean(0), t))),
    ('gradients reach every weight', small(with_extra(AnisotropicDenoiser))),
    ('gradients reach every weight', denoiser(items=items_detached)),
    ('extreme rows and steps give finite outputs and gradients',
     denoiser(code=lambda self, z, t: good_code(self, z, t) * z.square().sum(1, keepdim=True).sqrt())),
    ('extreme rows and steps give finite outputs and gradients',
     denoiser(code=lambda self, z, t: good_code(self, z, t) * (t / 100).exp().unsqueeze(1))),
    ('float32 stays float32 and close to float64',
     denoiser(forward=lambda self, *args: good_forward(self, *args).double())),
    ('in training, dropout is drawn from the generator alone',
     denoiser(encode=lambda self, x, generator=None: F.dropout(x, 0.5, self.training) @ self.item_weight)),
    ('in training, dropout is drawn from the generator alone',
     denoiser(encode=lambda self, x, generator=None: x @ self.item_weight)),
    ('in training, encode drops each entry of x with probability dropout and scales up the others',
     denoiser(encode=dropout_of_rows)),
    ('in training, encode drops each entry of x with probability dropout and scales up the others',
     denoiser(encode=dropout_without_scaling)),
    ('reset_parameters draws every weight anew', small(reset_once(AnisotropicDenoiser))),
    ('reset_parameters draws from torch.manual_seed alone', small(reset_by_its_own_seed(AnisotropicDenoiser))),
    ('a state dict makes another instance give the same output', small(with_hidden(AnisotropicDenoiser, 'code'))),
]


def sampler(change):
    """A sampler that changes what a good one draws; ``change`` is also given how to draw otherwise."""
    def forward(self, interactions, users, num_negatives, scores=None, t=None, num_steps=1, generator=None):
        def draw(source=generator):
            return UniformSampler.forward(self, interactions, users, num_negatives, scores, t, num_steps, source)
        return change(SimpleNamespace(draw=draw, interactions=interactions, users=users, wanted=num_negatives,
                                      generator=generator))
    return subclass(UniformSampler, forward=forward)()


def whole_catalogue(call):
    interactions = call.interactions
    want = call.wanted.minimum(interactions.num_items - interactions.user_degree[call.users])
    return top_per_row(torch.rand(want.numel(), interactions.num_items, generator=call.generator), want)


def with_replacement(call):
    row, item = call.draw()
    return row, item[torch.searchsorted(row, row)]


def caps_in_place(call):
    call.wanted.clamp_(max=call.interactions.num_items - call.interactions.user_degree[call.users])
    return call.draw()


def touches_the_global_generator(value):
    torch.rand(1)
    return value


seeds = itertools.count()
SAMPLERS_BROKEN = [
    ('a sampler returns two index vectors of one length',
     sampler(lambda call: [value.double() for value in call.draw()])),
    ('a sampler returns two index vectors of one length', sampler(lambda call: (call.draw()[0][1:], call.draw()[1]))),
    ('a sampler returns two index vectors of one length', sampler(lambda call: 1 / 0)),
    ('rows and items lie in range', sampler(lambda call: (call.draw()[0], call.draw()[1] + 1000))),
    ('rows and items lie in range', sampler(lambda call: (call.draw()[0] - 1, call.draw()[1]))),
    ('negatives are sorted by row', sampler(lambda call: tuple(value.flip(0) for value in call.draw()))),
    ('an observed item is never drawn', sampler(whole_catalogue)),
    ('no item is drawn twice in a row of the batch', sampler(with_replacement)),
    ('a row gets as many as asked for, up to what its user has not seen',
     sampler(lambda call: tuple(value[:-1] for value in call.draw()))),
    ('an empty batch gives no negatives', sampler(lambda call: call.draw() if int(call.users.max()) >= 0 else None)),
    ('arguments stay as they were', sampler(caps_in_place)),
    ('arguments stay as they were', sampler(lambda call: (call.draw(), call.users.zero_())[0])),
    ('the same generator seed gives the same draw', sampler(lambda call: call.draw(generator(next(seeds))))),
    ('the same generator seed gives the same draw', sampler(lambda call: call.draw(None))),
    ('all randomness comes from the generator', sampler(lambda call: touches_the_global_generator(call.draw()))),
]


def entropy(change, base=BCEEntropy):
    """A term that changes the value, or the scores that the good one is called with."""
    def forward(self, p, p_row, n, n_row, rows, items):
        return change(lambda p=p, n=n: base.forward(self, p, p_row, n, n_row, rows, items), p, p_row, n, rows)
    return subclass(base, forward=forward)


ENTROPIES = [
    ('an entropy term returns one value a row', entropy(lambda good, *_: good().sum())),
    ('a row without pairs, or without negatives, is finite',
     entropy(lambda good, p, p_row, n, rows: good() / p_row.bincount(minlength=rows))),
    ('the same call gives the same output and draws no random numbers',
     entropy(lambda good, *_: good() * torch.rand(()))),
    ('arguments stay as they were', entropy(lambda good, p, *_: good(p=p.data.clamp_(max=0)))),
    ("a row's value depends on its own pairs alone", entropy(lambda good, *_: good() - good().mean())),
    ('the order of the pairs does not matter',
     entropy(lambda good, p, p_row, n, rows: p.new_zeros(rows).index_put((p_row,), p) + 0 * n.sum())),
    ('gradients reach the scores', entropy(lambda good, p, p_row, n, rows: good(n=n.detach()))),
    ('gradients reach the scores', entropy(lambda good, p, p_row, n, rows: good(p=p.detach()))),
    ('it does not fall where observed scores rise and those of negatives fall', entropy(lambda good, *_: -good())),
    ('extreme scores give finite values and gradients of their own type',
     entropy(lambda good, p, p_row, n, rows: p.new_zeros(rows).index_add(0, p_row, p.sigmoid().log()) + good(p=0 * p))),
    ('extreme scores give finite values and gradients of their own type', entropy(lambda good, *_: good().double())),
    ('extreme scores give finite values and gradients of their own type',
     entropy(lambda good, p, p_row, n, rows: good() + 0 * p.exp().sum())),
]


def steps(change):
    def forward(self, batch_size, device=None, generator=None):
        return change(*UniformTimesteps.forward(self, batch_size, device, generator), generator)
    return subclass(UniformTimesteps, forward=forward)


class AnyNumber(UniformTimesteps):
    def __init__(self, num_steps):
        torch.nn.Module.__init__(self)
        self.num_steps = num_steps


class AtMostThree(UniformTimesteps):
    def __init__(self, num_steps):
        super().__init__(min(num_steps, 3))


class KeepsTheGraph(UniformTimesteps):
    scale = torch.ones(())

    def forward(self, batch_size, device=None, generator=None):
        t, weight = super().forward(batch_size, device, generator)
        return t, weight * self.scale

    def update(self, t, loss):
        self.scale = loss.sum() / loss.sum().detach().clamp(min=1)


class ForgetsItsHistory(LossHistoryTimesteps):
    def __init__(self, num_steps):
        super().__init__(num_steps, 1)
        for name in ('losses', 'count'):
            self.register_buffer(name, getattr(self, name), persistent=False)


TIMESTEPS = [
    ('a number of steps below 1 raises ValueError', AnyNumber),
    ('num_steps is what was asked for', AtMostThree),
    ('an empty batch gives no steps', steps(lambda t, weight, _: (t if len(t) else t.new_zeros(1), weight))),
    ('steps are [B] integers in 0..T-1', steps(lambda t, weight, _: (t + 1, weight))),
    ('steps are [B] integers in 0..T-1', steps(lambda t, weight, _: (t.double(), weight))),
    ('weights are [B] finite numbers above 0 that hold no graph', steps(lambda t, weight, _: (t, weight * 0))),
    ('weights are [B] finite numbers above 0 that hold no graph', steps(lambda t, weight, _: (t, weight.mean()))),
    ('weights are [B] finite numbers above 0 that hold no graph', KeepsTheGraph),
    ('the same generator seed gives the same steps and weights',
     steps(lambda t, weight, _: (t, 1 + 0.01 * torch.randn(t.shape, generator=generator(next(seeds)))))),
    ('all randomness comes from the generator',
     steps(lambda t, weight, _: touches_the_global_generator((t, weight)))),
    ('weights keep the mean over the steps unbiased',
     steps(lambda t, weight, draw: (t.minimum(t[torch.randperm(t.numel(), generator=draw)]), weight))),
    ('weights keep the mean over the steps unbiased', steps(lambda t, weight, _: (t, 1.05 * weight))),
    ('update leaves its arguments as they were',
     subclass(UniformTimesteps, update=lambda self, t, loss: loss.detach().clamp_(min=2))),
    ('a state dict makes another instance give the same output', ForgetsItsHistory),
]


def scores(change):
    """A model without training that changes good scores."""
    def scorer(self):
        score = Neighbours.scorer(self)
        return lambda users: change(lambda: score(users), self, users)
    return subclass(Neighbours, scorer=scorer)


def weighted(change):
    """The same with a weight an item, and a factor that the state dict does not hold."""
    def init(self, interactions):
        Neighbours.__init__(self, interactions)
        self.weight = torch.nn.Parameter(torch.randn(self.num_items))
        self.hidden = torch.rand(())
    return subclass(scores(change), __init__=init)


def loss(change):
    """An autoencoder that changes the good terms."""
    def training_loss(self, batch, generator=None):
        return change(AutoEncoder.training_loss(self, batch, generator), batch)
    return subclass(AutoEncoder, training_loss=training_loss)


class StaysInEvaluation(Neighbours):
    def scorer(self):
        return Neighbours.scorer(self.eval())


class Cached(AutoEncoder):
    def scorer(self):
        if not hasattr(self, 'cache'):
            self.cache = super().scorer()
        return self.cache


class Locked(Neighbours):
    def __init__(self, interactions):
        super().__init__(interactions)
        self.lock = threading.Lock()


class OneRowForAll(Popularity):
    def scorer(self):
        popularity = self.interactions.item_degree.double()
        return lambda users: popularity.expand(users.numel(), -1)


def fits_in_the_buffer(good, model, users):
    assert users.numel() <= 100, 'the buffer has room for 100 users'
    return good()


def clamps_its_weight(good, model, users):
    return good() * model.weight.data.clamp_(min=0)


MODELS = [
    ('num_users and num_items are those of the interactions', subclass(Neighbours, num_items=9)),
    ('scorer() and its scores leave every module in the mode it was in', StaysInEvaluation),
    ('scorer() and its scores leave every module in the mode it was in',
     scores(lambda good, model, users: (model.train(), good())[1])),
    ('scores are finite floating-point numbers [B, N]',
     scores(lambda good, model, users: good() / model.interactions.user_degree[users].unsqueeze(1))),
    ('scores are finite floating-point numbers [B, N]', scores(lambda good, *_: good().long())),
    ('scores are finite floating-point numbers [B, N]', scores(lambda good, *_: good()[:, 1:])),
    ('scores hold no graph', weighted(lambda good, model, users: good() * model.weight)),
    ('the same call gives the same scores and draws no random numbers',
     scores(lambda good, *_: good() + torch.rand(()))),
    ('the same call gives the same scores and draws no random numbers',
     scores(lambda good, *_: touches_the_global_generator(good()))),
    ('scores are those of evaluation mode',
     scores(lambda good, model, users: good() - good().mean(0) if model.training else good())),
    ("a user's scores do not depend on the rest of the batch", scores(lambda good, *_: good() - good().mean(0))),
    ('a batch may be empty', scores(lambda good, *_: torch.stack([*good()]))),
    ('writing into scores changes no later ones', OneRowForAll),
    ('scoring changes neither users nor interactions nor weights', weighted(clamps_its_weight)),
    ('scoring changes neither users nor interactions nor weights',
     scores(lambda good, model, users: (good(), users.copy_(users.flip(0)))[0])),
    ('recommend lists every unseen item and no seen one', scores(fits_in_the_buffer)),
    ('a state dict makes another instance give the same output',
     weighted(lambda good, model, users: good() * model.hidden)),
    ('a deep copy gives the same scores', Locked),
    ('a model that has trained ranks the held-out items of planted blocks first', Popularity),
    ('training_loss returns finite scalars, of which the loss alone holds a graph',
     loss(lambda terms, batch: terms._replace(loss=terms.loss.view(1)))),
    ('training_loss returns finite scalars, of which the loss alone holds a graph',
     loss(lambda terms, batch: terms._replace(entropy=terms.loss))),
    ('training_loss returns finite scalars, of which the loss alone holds a graph',
     loss(lambda terms, batch: terms._replace(energy=terms.energy / 0))),
    ('gradients reach every weight', with_extra(AutoEncoder)),
    ('the same generator seed gives the same loss and gradients',
     loss(lambda terms, batch: terms._replace(loss=terms.loss * (1 + next(seeds))))),
    ('all randomness comes from the generator', loss(lambda terms, batch: touches_the_global_generator(terms))),
    ('the batch stays as it was',
     loss(lambda terms, batch: (terms, batch.users.copy_(batch.users.sort().values))[0])),
    ('scorer() follows the weights', Cached),
]

SUITES = {
    check_conv: (CONVS, [MeanConv]),
    check_denoiser: (DENOISERS, [small(AnisotropicDenoiser)]),
    check_sampler: (SAMPLERS_BROKEN, [UniformSampler()]),
    check_entropy: (ENTROPIES, [BCEEntropy]),
    check_timesteps: (TIMESTEPS, [LossHistoryTimesteps]),
    check_model: (MODELS, [AutoEncoder]),
}


def from_the_rule(error):
    """What a suite says, from the rule's name on, whether the part broke it or raised something itself."""
    return str(error).split(' was raised, where the rule is: ')[-1]


@pytest.mark.parametrize('suite, rule, broken', [
    pytest.param(suite, rule, broken, id=f'{suite.__name__}-{rule}-{k}')
    for suite, (table, _) in SUITES.items() for k, (rule, broken) in enumerate(table)])
def test_a_broken_part_is_caught(suite, rule, broken):
    with pytest.raises(AssertionError) as caught:
        suite(broken)
    message = from_the_rule(caught.value)
    assert message.startswith(rule) and message[len(rule):][:2] in (': ', ' ('), message
    assert len(message) > len(rule) + 5  # and what was seen


def graph(change):
    """A data set that changes a good graph."""
    def make(toy):
        def broken():
            data = toy()[0]
            out = change(data)
            dataset = InMemoryDataset(None)
            dataset.data, dataset.slices = dataset.collate(out if isinstance(out, list) else [data])
            return dataset
        return broken
    return make


def set_entry(store, name, value):
    store[name] = value


def set_first_user(data):
    data[RATES].edge_index[0, 0] = 99


def one_item_more(data):
    data['item'].num_nodes += 1
    data.item_id.append('new')


def writes(toy):
    def broken():
        dataset = toy()
        (Path(dataset.raw_dir) / f'{next(seeds)}.tmp').write_text('')
        return dataset
    return broken


DATASETS = [
    ('a data set holds one HeteroData', graph(lambda data: [data, data])),
    ('ids are distinct texts, one a node', graph(lambda data: set_entry(data, 'user_id', [1, 2, 3]))),
    ('ids are distinct texts, one a node', graph(lambda data: set_entry(data, 'item_id', ['x', 'x', 'z']))),
    ('pairs are integers [2, E] in range', graph(set_first_user)),
    ('no pair occurs twice, in one part or in two',
     graph(lambda data: set_entry(data[RATES], 'edge_label_index', data[RATES].edge_index[:, :1]))),
    ('every user and every item has a training pair', graph(one_item_more)),
    ('the reverse edges are the training pairs flipped',
     graph(lambda data: set_entry(data[RATED_BY], 'edge_index', data[RATES].edge_index))),
    ('name and checksum tell the data apart', graph(lambda data: set_entry(data, 'name', ''))),
    ('name and checksum tell the data apart', graph(lambda data: set_entry(data, 'checksum', 'none'))),
    ('loading again gives the same graph', graph(lambda data: set_entry(data, 'name', f'toy {next(seeds)}'))),
    ('loading again writes nothing', writes),
]


@pytest.mark.parametrize('rule, broken', DATASETS, ids=[f'{rule}-{k}' for k, (rule, _) in enumerate(DATASETS)])
def test_a_broken_data_set_is_caught(rule, broken, toy):
    with pytest.raises(AssertionError) as caught:
        check_dataset(broken(toy))
    assert from_the_rule(caught.value).startswith(rule), str(caught.value)


def test_every_rule_has_a_part_that_breaks_it(monkeypatch, toy):
    rules, good_rule = set(), common.rule

    @contextmanager
    def noted(rule, case=''):
        rules.add(rule)
        with good_rule(rule, case):
            yield

    for module in (common, *(sys.modules[suite.__module__] for suite in (*SUITES, check_dataset))):
        monkeypatch.setattr(module, 'rule', noted)
    for suite, (table, good) in {**SUITES, check_dataset: (DATASETS, [toy])}.items():
        rules.clear()
        for part in good:
            suite(part)
        assert rules == {rule for rule, _ in table}, suite.__name__


def test_torchs_global_state_stays():
    state, dtype = torch.get_rng_state(), torch.get_default_dtype()
    check_conv(MeanConv)
    with pytest.raises(AssertionError):
        check_conv(with_extra(MeanConv))
    assert torch.equal(torch.get_rng_state(), state) and torch.get_default_dtype() == dtype


def test_a_message_names_the_rule_the_case_and_what_was_seen():
    message = r'^an observed item is never drawn \(as many as each has seen for all users\): user [0-9] got item [0-9]$'
    with pytest.raises(AssertionError, match=message):
        check_sampler(sampler(whole_catalogue))
