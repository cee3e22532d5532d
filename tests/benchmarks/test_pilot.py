"""The pilot study: what is read, and what is said of it."""
from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any, Dict, List

import pytest

pytest.importorskip('pytorch_lightning')
pytest.importorskip('scipy')
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks import pilot  # noqa: E402
from tvdiff_pyg.training import Run  # noqa: E402


def _found(**values: Any) -> Dict[str, List[Dict[str, Any]]]:
    return {model.replace('_', '-'): [{'ours': {'delta_energy': energy, 'delta_entropy': entropy}}]
            for model, (energy, entropy) in values.items()}


@pytest.mark.parametrize('found, expected', [
    (_found(bpr_mf=(-9, 1), lightgcn=(-8, 2), diffrec=(-3, 5), tv_diff=(-4, 4)), ('holds.', 'holds.')),
    (_found(bpr_mf=(-1, 9), tv_diff=(-4, 4)), ('is reversed.', 'is reversed.')),
    (_found(bpr_mf=(-9, 1), lightgcn=(-3.5, 4.5), diffrec=(-3, 5), tv_diff=(-4, 4)), ('only.', 'only.')),
])
def test_the_verdict(found: Dict[str, Any], expected: tuple) -> None:
    energy, entropy = pilot.verdict(found, 'ours').split(' Classic')
    assert energy.endswith(expected[0]) and entropy.endswith(expected[1])


def test_one_kind_of_model_alone_says_nothing() -> None:
    assert 'Not enough' in pilot.verdict(_found(tv_diff=(1, 1), diffrec=(2, 2)), 'ours')


def test_runs_are_measured_by_both_definitions(run_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / 'work' / 'lastfm' / 'tv-diff'
    folder.mkdir(parents=True)
    shutil.copytree(run_folder, folder / 'holdout-seed0')
    (folder / 'holdout-seed1').mkdir()  # begun, not finished
    record = pilot.main(['--work', str(tmp_path / 'work'), '--json', str(tmp_path / 'a.json'),
                         '--md', str(tmp_path / 'a.md')])
    assert json.loads((tmp_path / 'a.json').read_text()) == record and record['datasets']['amazon-beauty'] == {}
    measured, = record['datasets']['lastfm']['tv-diff']
    run = Run.load(run_folder)
    for definition in ('ours', 'published'):
        total = run.thermodynamics(published=definition == 'published').total()
        assert measured[definition]['delta_energy'] == pytest.approx(total['delta_energy'], abs=1e-3)
    page = (tmp_path / 'a.md').read_text()
    assert '| BPR-MF | not run |' in page and '-19,899' in page and 'Not enough models' in page
