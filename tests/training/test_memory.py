"""What a training needs, estimated before it begins."""
from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Dict

import pytest
import torch

pytest.importorskip('pytorch_lightning')
from tvdiff_pyg.cli import main  # noqa: E402
from tvdiff_pyg.datasets import load_dataset  # noqa: E402
from tvdiff_pyg.interaction_matrix import InteractionMatrix  # noqa: E402
from tvdiff_pyg.training import Recipe, Split, memory as memory_module  # noqa: E402
from tvdiff_pyg.training.memory import check_memory, memory_limit, training_bytes  # noqa: E402
from tvdiff_pyg.training.recipe import MODELS  # noqa: E402

RESULTS = Path(__file__).resolve().parents[2] / 'benchmarks' / 'results'


def _train(users: int = 40, items: int = 60) -> InteractionMatrix:
    seen = torch.rand(users, items, generator=torch.Generator().manual_seed(0)) < 0.2
    return InteractionMatrix(seen.nonzero().t(), users, items)


def _recipe(**groups: dict) -> Recipe:
    return Recipe.from_dict({'dataset': {'name': 'lastfm'}, **groups})


@pytest.fixture(scope='module')
def trains(data_root: Path) -> Dict[str, InteractionMatrix]:
    return {name: Split.from_data(load_dataset(name, data_root), 'holdout').train for name in ('lastfm', 'gowalla')}


@pytest.mark.parametrize('dataset, model', [
    *(('lastfm', model) for model in MODELS),
    *(('gowalla', model) for model in ('lightgcn', 'gf-cf', 'item-knn', 'popularity'))])
def test_estimates_lie_near_what_was_measured(dataset: str, model: str, trains: Dict[str, InteractionMatrix]) -> None:
    """By the peak memory that the benchmark's runs had."""
    if not RESULTS.is_dir():
        pytest.skip('the results are not here')
    record = json.loads((RESULTS / 'accuracy' / dataset / model / 'holdout-seed0.json').read_text())
    groups: dict = {'dataset': {'name': dataset}, 'model': {'name': model}}
    for name, value in record['settings'].items():
        group, _, setting = name.partition('.')
        groups.setdefault(group, {})[setting] = value
    estimate = training_bytes(Recipe.from_dict(groups), trains[dataset])
    assert estimate == pytest.approx(1e6 * record['metrics']['peak_rss_mb'], rel=0.25)


def test_the_dense_engine_is_estimated_too() -> None:
    """Gowalla, d = 1000, as benchmarks.speed measured it."""
    record = json.loads((RESULTS / 'speed-gowalla.json').read_text())
    row = next(row for row in record['records'] if row['name'] == 'train_step_exact' and row['sampler'] == 'ar-gsp')
    pairs = torch.stack([torch.arange(810128) % 29858, torch.arange(810128) % 40981])
    train = InteractionMatrix(pairs, 29858, 40981)
    recipe = _recipe(sampler={'pool_size': 2048})
    for engine, side in (('factored', 'subject'), ('dense', 'reference')):
        estimate = training_bytes(replace(recipe, model=replace(recipe.model, engine=engine)), train)
        assert estimate == pytest.approx(1e6 * row[f'{side}_peak_mb'], rel=0.25), engine


def test_it_grows_with_what_it_should() -> None:
    train = _train(3000, 60)
    base = training_bytes(_recipe(), train)
    for groups in ({'model': {'hidden_channels': 2000}}, {'training': {'batch_size': 2900}},
                   {'model': {'engine': 'dense'}}, {'model': {'hidden_channels': [1000, 1000]}},
                   {'training': {'average': 0.9}}, {'loss': {'entropy': 'bpr'}, 'training': {'batch_size': 9000}}):
        assert training_bytes(_recipe(**groups), train) > base, groups
    assert training_bytes(_recipe(training={'num_parts': 4}), train) < base
    assert training_bytes(_recipe(), _train(3000, 120)) > base
    # A batch of users holds no more than there are.
    assert training_bytes(_recipe(training={'batch_size': 3000}), train) == training_bytes(
        _recipe(training={'batch_size': 10 ** 6}), train)
    limit, what = memory_limit()
    assert 1e8 < limit < 1e14 and 'memory' in what


def test_processes_share_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    alone, _ = memory_limit(trains=False)
    monkeypatch.setattr(memory_module, 'launched', lambda: True)
    monkeypatch.setattr(memory_module, 'nodes_and_devices', lambda: (2, 4))
    assert memory_limit(trains=False) == (alone / 4, 'memory')


@pytest.mark.parametrize('groups, expected', [
    ({'model': {'hidden_channels': 1000}}, '--model.hidden_channels 500'),
    ({'model': {'engine': 'dense', 'hidden_channels': 8}}, '--model.engine factored'),
    ({'model': {'hidden_channels': 1}}, 'no smaller setting'), ({'model': {'name': 'ease'}}, 'no smaller setting')])
def test_what_cannot_fit_is_refused_with_what_would(groups: dict, expected: str,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    train, recipe = _train(), _recipe(**groups)
    needed = training_bytes(recipe, train)
    for factor, line in ((1.3, ' of 0.7 GB'), (1.2, ' of 0.6 GB: it may not do'), (0.81, ' of 0.4 GB: it may not do')):
        monkeypatch.setattr(memory_module, 'memory_limit', lambda trains: (factor * needed, 'memory'))
        assert check_memory(recipe, train) == f'memory: about 0.5 GB{line}'
    monkeypatch.setattr(memory_module, 'WITHIN', 1)
    monkeypatch.setattr(memory_module, 'memory_limit', lambda trains: (needed - 1e3, 'GPU memory'))
    with pytest.raises(ValueError, match=f'needs about .* of GPU memory: {expected}'):
        check_memory(recipe, train)


def test_the_advice_can_be_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dense, wide, a large batch, ever less memory: what is advised fits, however many settings it takes."""
    train = _train(3000, 2000)
    recipe = _recipe(model={'engine': 'dense'}, training={'batch_size': 3000})
    needed, followed = training_bytes(recipe, train), set()
    for share in (0.9, 0.8, 0.72, 0.7):
        monkeypatch.setattr(memory_module, 'memory_limit', lambda trains: (share * needed, 'memory'))
        monkeypatch.setattr(memory_module, 'WITHIN', 1)
        with pytest.raises(ValueError, match='would do') as found:
            check_memory(recipe, train)
        values = recipe.to_dict()
        for option, value in re.findall(r'--(\S+) (\w+)', str(found.value)):
            group, _, name = option.partition('.')
            values[group][name] = int(value) if value.isdigit() else value
            followed.add(option)
        check_memory(Recipe.from_dict(values), train)
    assert 'model.engine' in followed and len(followed) > 1


def test_fit_refuses_before_it_makes_anything(ratings_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                              capsys: pytest.CaptureFixture) -> None:
    options = ['fit', '--dataset.path', str(ratings_file), '--out', str(tmp_path / 'run'), '--max-epochs', '1',
               '--training.ks', '[20]']
    with monkeypatch.context() as patch:
        patch.setattr(memory_module, 'memory_limit', lambda trains: (1e8, 'memory'))
        with pytest.raises(SystemExit):
            main([*options, '--model.hidden_channels', '100000000'])
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and 'but there are 0.1 GB of memory' in error and not (tmp_path / 'run').exists()
    with pytest.raises(SystemExit):
        main([*options, '--model.hidden_channels', '1000000000000'])
    assert '--model.hidden_channels ' in capsys.readouterr().err
    main([*options, '--model.hidden_channels', '8'])
    assert 'memory: about 0.5 GB of ' in capsys.readouterr().out
