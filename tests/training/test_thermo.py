"""``tvdiff thermo``: runs against their data."""
from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch

pytest.importorskip('pytorch_lightning')
from tvdiff_pyg.cli import main  # noqa: E402
from tvdiff_pyg.thermodynamics import Thermodynamics, thermodynamics  # noqa: E402
from tvdiff_pyg.training import Run  # noqa: E402
from tvdiff_pyg.training import thermo as thermo_module  # noqa: E402
from tvdiff_pyg.training.describe import describe_thermodynamics  # noqa: E402
from tvdiff_pyg.training.people import person, sample_people  # noqa: E402
from tvdiff_pyg.training.plots import plane_figure, reconstruction_figure  # noqa: E402


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
    assert 'by our definitions' in lines[2] and 'Estimated from a sample' in lines[3]
    with pytest.raises(SystemExit):
        main(['thermo', str(run_folder), '--users', '1', '--out', str(tmp_path / 'other')])
    assert "'--users' must be at least 2" in capsys.readouterr().err and not (tmp_path / 'other').exists()


def test_figures_show_what_they_say() -> None:
    seen = Thermodynamics(torch.arange(3), torch.tensor([4, 1, 2]), torch.tensor([0.4, 0.1, 0.2]),
                          torch.tensor([5.0, 6.0, 7.0]), 3)
    left, right = reconstruction_figure({'a $b$': seen}).axes[:2]
    drawn = {line.get_label(): line.get_ydata().tolist() for line in left.lines}
    assert drawn == {'reconstructed': pytest.approx([0.1, 0.2, 0.4]), 'original': [1, 2, 4]}
    assert [line.get_ydata().tolist() for line in right.lines] == [[6.0, 7.0, 5.0], pytest.approx([0.0, 1.0, 2.0])]
    figure = plane_figure({'x': {'delta_energy': -3.0, 'delta_entropy': 2.0}},
                          {'x': [{'delta_energy': -4.0, 'delta_entropy': 5.0}, {'epoch': 1}]})
    path, point = figure.axes[0].lines[:2]
    assert (path.get_xdata().tolist(), path.get_ydata().tolist()) == ([-4.0], [5.0])
    assert (point.get_xdata().tolist(), point.get_ydata().tolist()) == ([-3.0], [2.0])


def test_the_table_and_the_paths(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {'run': 'r', 'model': 'm', 'dataset': 'd', 'users': 4, 'sampled': None, 'delta_energy': -10.0,
           'delta_entropy': 6.0, 'definition': 'ours', 'protocol': 'paper', 'pairs': 9,
           'split_checksum': 'abcdefghij'}
    cells = describe_thermodynamics([row]).splitlines()[1].split()
    *_, definition, other = describe_thermodynamics([{**row, 'definition': 'published'}, {
        **row, 'split_checksum': 'klmnopqrst'}]).splitlines()
    assert definition == "Model minus data, by the definitions of the paper's plots."
    assert other == ('These runs are of different data (d, paper, 9 pairs, split abcdefgh; d, paper, 9 pairs, '
                     'split klmnopqr): their totals cannot be compared.')
    assert cells == ['r', 'm', 'd', '4', '-10.0', '6.0', '-2.50', '1.500']
    paths: list = []
    titles: list = []
    monkeypatch.setattr(thermo_module, 'plane_figure',
                        lambda means, given: titles.extend(means) or paths.append(given) or plane_figure(means, {}))
    for published in (False, True):
        thermo_module.compare_runs([run_folder], tmp_path / str(published), published)
    assert titles[1] == f'{titles[0]} (as published)'
    (ours,), (theirs,) = (list(given.values()) for given in paths)
    assert len(ours) == len(Run.load(run_folder).history()) and theirs == []  # what is logged is ours


def test_runs_of_one_name_are_told_apart(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the second is named by nothing but the name that both have."""
    for folder in ('x', 'y'):
        shutil.copytree(run_folder, tmp_path / folder / 'demo')
    monkeypatch.chdir(tmp_path / 'y')
    main(['report', '../x/demo', 'demo', '--out', 'report.html'])
    assert Path('report.html').read_text(encoding='utf-8').count('<h2 id="run-') == 2
    labels: list = []
    monkeypatch.setattr(thermo_module, 'plane_figure',
                        lambda means, paths: labels.extend(means) or plane_figure(means, {}))
    main(['thermo', '../x/demo', 'demo', '--out', 'out'])
    assert labels[0].endswith(', demo') and labels[1].endswith(f", {tmp_path / 'y' / 'demo'}")


def test_a_run_whose_scores_are_no_distribution_is_named(ratings_file: Path, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch,
                                                         capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / 'ease'
    main(['fit', '--dataset.path', str(ratings_file), '--model.name', 'ease', '--out', str(out)])
    monkeypatch.setattr(type(Run.load(out).model), 'scorer',
                        lambda self: lambda users: torch.zeros(users.numel(), self.interactions.num_items))
    with pytest.raises(SystemExit):
        main(['thermo', str(out), '--published', '--out', str(tmp_path / 'out')])
    assert f"{out}: 'scorer' gave user" in capsys.readouterr().err and not (tmp_path / 'out').exists()


def test_another_seed_is_another_sample(run_folder: Path) -> None:
    run = Run.load(run_folder)
    first, second = (run.thermodynamics(10, seed=seed).users.tolist() for seed in (0, 1))
    assert first != second and first == run.thermodynamics(10, seed=0).users.tolist()


def test_people_are_of_middling_activity_and_their_rarest_items_come_first(run_folder: Path) -> None:
    run = Run.load(run_folder)
    degree = run.split.train.user_degree
    ranks = [int((degree > degree[user]).sum()) for user in sample_people(run)]
    assert ranks[0] <= run.split.train.num_users // 4 and ranks[-1] <= run.split.train.num_users // 2
    user = sample_people(run)[0]
    about = person(run, user, liked=3)
    by_item = dict(zip(run.split.data.item_id, run.split.train.item_degree.tolist()))
    items = run.split.train.rows(torch.tensor([user]))[1].tolist()
    mine = sorted(by_item[run.split.data.item_id[item]] for item in items)
    assert [by_item[item['item']] for item in about['liked']] == mine[:3] and about['number'] == len(mine)


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
