"""One hop against K hops: the factored measures against brute force, the planted graphs, and a small run of it all."""
from __future__ import annotations

import json
import math
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any, Dict, Tuple

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

pytest.importorskip('pytorch_lightning')
pytest.importorskip('matplotlib')
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks import one_hop  # noqa: E402
from tvdiff_pyg.datasets import gini  # noqa: E402
from tvdiff_pyg.interaction_matrix import InteractionMatrix  # noqa: E402
from tvdiff_pyg.nn import AnisotropicDenoiser  # noqa: E402
from tvdiff_pyg.training import Recipe, fit  # noqa: E402

POWERS = {'sym': (-0.5, -0.5), 'left': (-1.0, 0.0), 'linkprop': (-0.25, -0.5)}


def graph_of(exponent: float, density: float = 0.1, **settings: float) -> InteractionMatrix:
    return one_hop.planted_graph(60, 40, torch.Generator().manual_seed(0), density, exponent, **settings)


def dense_rbar(interactions: InteractionMatrix, normalization: str) -> Tensor:
    """Return Rbar ``[M, N]``, from its definition, in float64."""
    r = interactions.dense(torch.arange(interactions.num_users), torch.float64)
    user, item = (degree.clamp(min=1).pow(power) for degree, power in zip((r.sum(1), r.sum(0)), POWERS[normalization]))
    return user.unsqueeze(1) * r * item


def brute_force(denoiser: AnisotropicDenoiser, interactions: InteractionMatrix, hops: int, act: str,
                laplacian: str) -> Tuple[float, float, float]:
    """Return smoothness, entropy and its excess over the data's from the dense S."""
    x = interactions.dense(torch.arange(interactions.num_users), torch.float64)
    rbar = dense_rbar(interactions, denoiser.normalization)
    h = torch.linalg.matrix_power(rbar.t() @ rbar, hops - 1) @ rbar.t() @ denoiser.conv.weight
    s = denoiser.code(x @ denoiser.item_weight, torch.zeros(len(x), dtype=torch.long)) @ (
        h.tanh() if act == 'tanh' else h).t()
    rbar = dense_rbar(interactions, laplacian)
    smoothness = torch.trace(s @ (torch.eye(s.size(1)) - rbar.t() @ rbar) @ s.t()) / s.square().sum()
    entropies, excess = [], []
    for row, count in zip(s.tolist(), x.sum(1).tolist()):
        if count > 0:
            p = [max(score, 1e-6) for score in row]
            entropies.append(-sum(v / sum(p) * math.log2(v / sum(p)) for v in p))
            excess.append(entropies[-1] - math.log2(count))
    return float(smoothness), sum(entropies) / len(entropies), sum(excess) / len(excess)


@pytest.mark.parametrize('normalization', one_hop.NORMALIZATIONS)
def test_every_measure_is_that_of_the_dense_matrix(normalization: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_hop, 'BLOCK_ENTRIES', 7 * 40)  # several blocks of users
    interactions = graph_of(1.5)
    assert int(interactions.item_degree.min()) == 0  # an item that nobody has
    torch.manual_seed(0)
    denoiser = AnisotropicDenoiser(60, 40, 5, normalization=normalization).double()
    with torch.no_grad():
        denoiser.conv.weight.mul_(20)  # so that tanh bends
        denoiser.time_weight.mul_(0.1)  # so that users differ
        found = one_hop.measure(denoiser, interactions, 3, 60, seed=0)
        for act in ('tanh', 'linear'):
            for k in (1, 2, 3):
                for laplacian, name in ((normalization, 'smoothness'), ('sym', 'smoothness_sym')):
                    smoothness, entropy, excess = brute_force(denoiser, interactions, k, act, laplacian)
                    assert_close(found[act][name][k - 1], smoothness)
                assert_close(found[act]['entropy'][k - 1], entropy)
                assert_close(found[act]['delta_entropy'][k - 1], excess)
                assert 0 < found[act]['clipped'][k - 1] < 1 and found[act]['entropy_se'][k - 1] == 0
    assert found['tanh']['saturated'][0] > 0.05
    assert found['tanh']['smoothness'][0] != pytest.approx(found['linear']['smoothness'][0], abs=1e-3)
    # Without the tanh more hops are always smoother: the page's inequality.
    assert found['linear']['smoothness'] == sorted(found['linear']['smoothness'], reverse=True)


def test_a_sample_of_users_estimates_the_mean_over_all() -> None:
    interactions = graph_of(0.5)
    torch.manual_seed(0)
    denoiser = AnisotropicDenoiser(60, 40, 5)
    all_users, some = (one_hop.measure(denoiser, interactions, 1, users, seed=1)['tanh'] for users in (60, 30))
    assert some['smoothness'] == all_users['smoothness'] and some['entropy'] != all_users['entropy']
    for name in ('entropy', 'delta_entropy'):
        assert abs(some[name][0] - all_users[name][0]) < 4 * some['entropy_se'][0]


def test_many_hops_end_in_the_square_roots_of_the_degrees() -> None:
    interactions = graph_of(0.5, 0.3)
    torch.manual_seed(0)
    denoiser = AnisotropicDenoiser(60, 40, 5).double()
    found = one_hop.measure(denoiser, interactions, 40, 60, seed=0)['linear']
    assert found['smoothness'][-1] == pytest.approx(0, abs=1e-6)
    # A user's scores are then all of one sign: all clipped, so that p is uniform, or in proportion to the square roots.
    clipped, data_entropy = found['clipped'][-1], found['entropy'][-1] - found['delta_entropy'][-1]
    assert 0 < clipped < 1
    limit = clipped * math.log2(40) + (1 - clipped) * (one_hop.limit_entropy(interactions) + data_entropy)
    assert found['entropy'][-1] == pytest.approx(limit, abs=1e-4)


def test_planted_graphs_have_the_density_and_the_skew_that_they_are_asked_for() -> None:
    for density in (0.05, 0.3):
        skew = [graph_of(exponent, density) for exponent in (0.0, 0.5, 1.0, 1.5)]
        assert [graph.num_interactions for graph in skew] == [round(density * 60 * 40)] * 4
        items = [gini(graph.item_degree) for graph in skew]
        assert all(low + 0.05 < high for low, high in zip(items, items[1:]))
        assert gini(graph_of(1.0, density, user_exponent=1.0).user_degree) > gini(skew[2].user_degree) + 0.1
    same, other = graph_of(1.0), one_hop.planted_graph(60, 40, torch.Generator().manual_seed(1), 0.1, 1.0)
    assert torch.equal(same.key, graph_of(1.0).key) and not torch.equal(same.key, other.key)


def test_communities() -> None:
    for communities, low, high in ((1, 0.15, 0.35), (4, 0.85, 0.98)):  # 0.9 + 0.1 / 4, less what repeats
        user, item = graph_of(0.5, 0.1, communities=communities).edge_index
        assert low < float((user % 4 == item % 4).double().mean()) < high


def test_without_a_graph_there_are_no_hops() -> None:
    for more in ({'normalization': 'none'}, {'num_hops': 2}):
        with pytest.raises(ValueError, match="'denoiser' must have a graph"):
            one_hop.measure(AnisotropicDenoiser(60, 40, 5, **more), graph_of(0.5), 2, 60, 0)


@pytest.fixture
def settings(tmp_path: Path) -> Dict[str, Any]:
    """The settings of a small run, on a planted graph."""
    pairs = graph_of(0.0, 0.2).edge_index.t().tolist()
    (tmp_path / 'pairs.txt').write_text(''.join(f'{user} {item}\n' for user, item in pairs))
    return {'dataset': {'name': 'interaction-file', 'path': str(tmp_path / 'pairs.txt'), 'layout': 'pairs'}}


def test_the_command(settings: Dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                     capsys: pytest.CaptureFixture) -> None:
    recipe = Recipe.from_dict({**settings, 'model': {'hidden_channels': 4}, 'training': {'max_epochs': 1}})
    for seed in (3, 4):
        fit(recipe, tmp_path / f'run{seed}', seed=seed)
    monkeypatch.setattr(one_hop, 'PLANTED', one_hop.PLANTED[-1:])
    options = ['--planted-size', '50', '40', '--seeds', '0', '7', '--hops', '2', '--hidden-channels', '4', '--users',
               '30', '--json', str(tmp_path / 'out.json'), '--plot', str(tmp_path / 'out.png')]
    rows = one_hop.main([*options, '--runs', str(tmp_path / 'run3'), str(tmp_path / 'run4')])
    written = json.loads((tmp_path / 'out.json').read_text())
    assert written['rows'] == rows and written['planted_size'] == [50, 40] and written['versions']['torch']
    assert (tmp_path / 'out.png').read_bytes().startswith(b'\x89PNG')
    about = [(row['weights'], row['normalization'], row['act'], row['seeds']) for row in rows]
    assert about == [
        *(('initial', name, act, [0, 7]) for name in one_hop.NORMALIZATIONS for act in ('tanh', 'linear')),
        *((f'trained, holdout, seed {seed}', 'sym', act, [seed]) for seed in (3, 4) for act in ('tanh', 'linear'))]
    for row in rows:
        assert row['smoothness_one_hop_lower'][0] == row['entropy_one_hop_lower'][0] == 0  # nothing is below itself
        assert len(row['entropy']) == 2 and row['hidden_channels'] == 4
    printed = capsys.readouterr().out
    assert all(one_hop.line(row) in printed for row in rows)
    assert rows[1]['smoothness_one_hop_lower'] == [0, 0] and rows[1]['density'] == 0.02

    again = one_hop.main([*options, '--runs', str(tmp_path / 'run4')])  # what the file holds of others is kept
    assert again == rows == json.loads((tmp_path / 'out.json').read_text())['rows']
    for other in ('--users=29', '--hops=3', '--hidden-channels=5', '--seeds=1'):
        with pytest.raises(SystemExit, match='was written with other options: name another --json'):
            one_hop.main([*options, other])
    assert json.loads((tmp_path / 'out.json').read_text())['rows'] == rows
    fit(Recipe.from_dict({**settings, 'model': {'hidden_channels': 5}, 'training': {'max_epochs': 1}}),
        tmp_path / 'wider', seed=4)
    one_hop.main([*options, '--runs', str(tmp_path / 'wider')])  # the same seed is another run
    after = json.loads((tmp_path / 'out.json').read_text())['rows']
    assert len(after) == len(rows) + 2 and all(row in after for row in rows)


def test_other_models_are_refused(settings: Dict[str, Any], tmp_path: Path) -> None:
    fit(Recipe.from_dict({**settings, 'model': {'name': 'popularity'}}), tmp_path / 'run')
    with pytest.raises(ValueError, match='is one of popularity'):
        one_hop.trained(str(tmp_path / 'run'), Namespace(hops=2, users=30))
