"""``tvdiff thermo``: runs against their data."""
from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

pytest.importorskip('pytorch_lightning')
from tvdiff_pyg.cli import main  # noqa: E402
from tvdiff_pyg.thermodynamics import thermodynamics  # noqa: E402
from tvdiff_pyg.training import Run  # noqa: E402


@pytest.mark.parametrize('published', [False, True])
def test_the_table_the_csv_and_the_library_agree(published: bool, run_folder: Path, tmp_path: Path,
                                                 capsys: pytest.CaptureFixture) -> None:
    options = ['--published'] if published else []
    main(['thermo', str(run_folder), '--out', str(tmp_path / 'out'), '--json', *options])
    row, = json.loads(capsys.readouterr().out)
    run = Run.load(run_folder)
    expected = thermodynamics(run.model.scorer(), run.split.train, 'clip', published)
    assert row['users'] == expected.users.numel() == run.split.train.num_users and row['sampled'] is None
    assert row['delta_entropy'] == pytest.approx(float(expected.delta_entropy.sum()), rel=1e-9)
    assert row['delta_energy'] == pytest.approx(float(expected.delta_energy.sum()), rel=1e-9)
    with open(tmp_path / 'out' / 'thermo.csv', encoding='utf-8') as file:
        users = list(csv.DictReader(file))
    assert [user['user'] for user in users] == run.split.data.user_id
    assert sum(float(user['delta_energy']) for user in users) == pytest.approx(row['delta_energy'], rel=1e-9)
    for name in ('reconstruction.png', 'plane.png'):
        assert (tmp_path / 'out' / name).read_bytes().startswith(b'\x89PNG')


def test_in_words_and_from_a_sample(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    main(['thermo', str(run_folder), '--users', '10', '--out', str(tmp_path / 'out')])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith(str(run_folder)) and 'tv-diff' in lines[1] and ' ± ' in lines[1]
    assert 'Estimated from a sample' in lines[2]
    with pytest.raises(SystemExit):
        main(['thermo', str(run_folder), '--users', '1', '--out', str(tmp_path / 'other')])
    assert "'size' must be at least 2" in capsys.readouterr().err and not (tmp_path / 'other').exists()


@pytest.mark.slow
def test_lastfm_by_brute_force(data_root: Path, tmp_path: Path) -> None:
    """A whole users x items array, once, in float64: equal to a millionth."""
    main(['fit', '--recipe', 'lastfm', '--data-root', str(data_root), '--model.hidden_channels=64',
          '--max-epochs', '2', '--out', str(tmp_path / 'run')])
    run = Run.load(tmp_path / 'run')
    seen = run.thermodynamics().total()
    train = run.split.train
    scores = run.model.scorer()(torch.arange(train.num_users)).double()
    n = train.user_degree.double().unsqueeze(1)
    p = scores.clamp(min=1e-6)
    p = p / p.sum(1, keepdim=True)
    entropy = -(p * p.log2()).sum(1)
    energy = torch.where(p >= 1 / n, torch.ones_like(p), p * (p * n)).sum(1)
    assert seen['entropy'] == pytest.approx(float(entropy.sum()), rel=1e-6)
    assert seen['energy'] == pytest.approx(float(energy.sum()), rel=1e-6)
