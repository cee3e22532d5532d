"""The pilot study: what is read, and what is said of it."""
from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any, Dict, List

import pytest
import torch
import yaml

pytest.importorskip('pytorch_lightning')
pytest.importorskip('scipy')
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks import pilot  # noqa: E402
from benchmarks.sweep import unpack  # noqa: E402
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


def _runs(energy: float, entropy: float, **more: Any) -> List[Dict[str, Any]]:
    """Runs of LastFM's size: 1,887 users, nearly all of whom have 39 of 73,758 pairs."""
    values = {'delta_energy': energy, 'delta_entropy': entropy}
    return [{'users': 1887, 'pairs': 73758, 'published_pairs': 73758, 'items': 15313, 'published': values,
             'degrees': [[39, 165], [1886, 1]], **more}]


def test_agreement_is_stated_for_each_model_and_quantity() -> None:
    found = {'lightgcn': _runs(-60000.0, -900.0), 'tv-diff': _runs(-73758.0, 12000.0)}
    assert list(pilot.agreement('lastfm', found)) == [
        'LightGCN, delta U: agrees within 5% (+2.6%): -0.813 a pair against -0.793.',
        'LightGCN, delta S: is not reproduced: -0.477 a user against 0.005.',
        'TV-Diff, delta U: is not reproduced: -1.000 a pair against -0.270.',
        'TV-Diff, delta S: agrees within 5% (+0.0%): 6.359 a user against 6.356.']
    found['lightgcn'][0]['pairs'] = 66388  # of the hold-out: totals say nothing, values a pair do
    assert 'is not reproduced (+14.0%): -0.904 a pair' in next(pilot.agreement('lastfm', found))
    said, = pilot.agreement('gowalla', found)
    assert said.endswith('not compared.')


def test_it_says_why_there_is_no_energy_and_what_cannot_be() -> None:
    rows = {'largest': [0.3, 0.7], 'observed_mass': 0.13, 'negative_sums': 0, 'readings': {'a': -19400.0, 'b': -9.0}}
    turned = {**rows, 'negative_sums': 219, 'readings': {'a': -20000.0, 'b': -19899.0}}
    found = {'diffrec': _runs(-73758.0, 1.0, rows=rows), 'tv-diff': _runs(-73758.0, 1.0, rows=turned)}
    zero, readings, impossible = pilot.explanation('lastfm', found)
    assert 'DiffRec and TV-Diff is 0 for every user' in zero and 'DiffRec: p_j n_u is at most 0.70, in the' in zero
    assert zero.endswith('13% of a row (219 rows have a negative sum: the division turns them over).')
    assert 'a -19,400 / -20,000; b -9 / -19,899; published -19,336 / -19,899. Near it comes: a.' in readings
    assert 'needs 52,535 items' in impossible and impossible.endswith('published is 12,655.')
    found['tv-diff'][0]['published']['delta_energy'] = -73757.0
    assert 'is 0 for every user' not in next(pilot.explanation('lastfm', found))
    assert not list(pilot.explanation('lastfm', {'bpr-mf': _runs(-1.0, 1.0)}))
    assert not list(pilot.explanation('gowalla', {'diffrec': _runs(-1.0, 1.0)}))


def test_no_row_has_more_entropy_than_the_bound() -> None:
    generator, items = torch.Generator().manual_seed(0), 60
    for _ in range(50):
        n = torch.randint(1, 20, (6,), generator=generator)
        p = (torch.randn(6, items, generator=generator, dtype=torch.float64) * 3).softmax(1)
        entropy = torch.special.entr(p).sum(1) / math.log(2) - n.log2()
        kept = int((p >= 1 / n.unsqueeze(1)).sum())
        assert float(entropy.sum()) <= pilot.entropy_bound([n.tolist(), [1] * 6], items, kept)
    row = torch.tensor([1 / 10] * 4 + [0.6 / 56] * 56, dtype=torch.float64)  # the row that attains it
    attained = float(torch.special.entr(row).sum()) / math.log(2) - math.log2(10)
    assert pilot.entropy_bound([[10], [3]], items, 12) == pytest.approx(3 * attained, abs=0.05)


def test_rows_are_read_as_the_definition_says(run_folder: Path) -> None:
    run = Run.load(run_folder)
    train, found = run.split.train, pilot.rows(run)
    count = {name: 0.0 for name in found['readings']}
    largest, mass, negative = [], [], 0
    for user in range(train.num_users):
        n = int(train.user_degree[user])
        scores = run.model.scorer()(torch.tensor([user]))[0].double()
        seen = torch.zeros(train.num_items, dtype=torch.bool)
        seen[train.edge_index[1][train.edge_index[0] == user]] = True
        p = (scores / scores.sum()).clamp(min=0)
        p = p / p.sum()
        negative += int(scores.sum() < 0)
        largest.append(float(p.max()) * n)
        mass.append(float(p[seen].sum()))
        best = torch.zeros_like(seen)
        best[scores.argsort(descending=True)[:n]] = True
        positive = scores.clamp(min=0)
        for name, high in zip(count, (
                scores >= 1 / n, scores / scores.sum() >= 1 / n, positive[seen] / positive[seen].sum() >= 1 / n,
                positive[best] / positive[best].sum() >= 1 / n, scores.softmax(0) >= 1 / n, seen & best)):
            count[name] += min(int(high.sum()), n) - n
    assert found['negative_sums'] == negative and found['readings'] == count and len(set(count.values())) > 3
    assert found['largest'] == pytest.approx([sorted(largest)[(len(largest) - 1) // 2], max(largest)])
    assert found['observed_mass'] == pytest.approx(sum(mass) / len(mass))


def test_runs_are_measured_by_both_definitions(run_folder: Path, tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / 'work' / 'lastfm' / 'tv-diff'
    folder.mkdir(parents=True)
    for name in ('paper-seed0', 'paper-seed1', 'holdout-seed0'):
        shutil.copytree(run_folder, folder / name)
    (folder / 'paper-seed2').mkdir()  # begun, not finished
    path = folder / 'paper-seed1' / 'metrics.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), 'seed': 1}))
    monkeypatch.setattr(pilot, 'NUM_DRAWN', 7)
    monkeypatch.setattr(pilot, 'NUM_EPOCHS', 3)
    options = ['--json', str(tmp_path / 'a.json'), '--md', str(tmp_path / 'a.md')]
    record = pilot.main(['--work', str(tmp_path / 'work'), *options])
    assert json.loads((tmp_path / 'a.json').read_text()) == record and record['datasets']['amazon-beauty'] == {}
    measured, other = record['datasets']['lastfm']['tv-diff']
    run = Run.load(run_folder)
    metrics = run.metrics
    for definition in ('ours', 'published'):
        total = run.thermodynamics(published=definition == 'published').total()
        assert measured[definition]['delta_energy'] == pytest.approx(total['delta_energy'], abs=1e-3)
        assert other[definition] == measured[definition]
    assert measured['published_pairs'] == metrics['pairs']['train'] + metrics['pairs']['validation'] > measured['pairs']
    for name in ('split_checksum', 'versions', 'device'):
        assert measured[name] == metrics[name]
    assert [measured['seed'], other['seed']] == [metrics['seed'], 1] == [0, 1]
    assert measured['seconds'] > 0 and 'per_user' not in other
    degree = run.split.train.user_degree
    assert sum(n * users for n, users in zip(*measured['degrees'])) == int(degree.sum())

    observed, energy = (unpack(measured['per_user'][name]) for name in ('observed', 'energy'))
    value = run.thermodynamics()
    assert observed.tolist() == sorted(value.observed.tolist())[::6] and len(observed) == 7  # 40 users, thinned
    order = value.observed.argsort(stable=True)[::6]
    assert energy == pytest.approx(value.energy[order].numpy(), rel=1e-3)
    history = run.history()
    assert [row['epoch'] for row in measured['path']] == [0, 2]
    assert measured['path'][1]['delta_energy'] == pytest.approx(history[2]['delta_energy'], abs=1e-4)
    page, plot = (tmp_path / 'a.md').read_text(), (tmp_path / 'a-lastfm.png').read_bytes()
    assert '| BPR-MF | not run |' in page and '-19,899' in page and 'Not enough models' in page
    assert '(a-lastfm.png)' in page and plot.startswith(b'\x89PNG') and 'totals differ by that alone' in page

    second = tmp_path / 'later' / 'lastfm' / 'tv-diff' / 'paper-seed1'
    shutil.copytree(folder / 'paper-seed1', second)
    shutil.rmtree(tmp_path / 'work')  # the JSON is enough
    (tmp_path / 'a-lastfm.png').unlink()
    pilot.main(options)
    assert (tmp_path / 'a.md').read_text() == page and (tmp_path / 'a-lastfm.png').read_bytes() == plot
    shutil.copytree(run_folder, tmp_path / 'later' / 'lastfm' / 'bpr-mf' / 'paper-seed0')  # on another machine
    later = pilot.main(['--work', str(tmp_path / 'later'), *options])
    kept, again = later['datasets']['lastfm']['tv-diff']
    assert kept == measured and again == {**other, 'seconds': again['seconds']}  # by seed
    bpr, = later['datasets']['lastfm']['bpr-mf']
    assert bpr['ours'] == measured['ours'] and 'per_user' in bpr
    path = second / 'config.yaml'
    settings = yaml.safe_load(path.read_text())
    settings['training']['lr'] *= 2
    path.write_text(yaml.safe_dump(settings))
    with pytest.raises(SystemExit, match='runs of tv-diff on lastfm are of different settings'):
        pilot.main(['--work', str(tmp_path / 'later'), *options])
    with pytest.raises(SystemExit, match='the runs of lastfm are of different splits'):
        pilot.check_runs('lastfm', {'tv-diff': [measured, {**other, 'split_checksum': 'another'}]})
    assert json.loads((tmp_path / 'a.json').read_text()) == later  # nothing was written
    record['datasets']['gowalla'] = {'tv-diff': [{**measured, 'stopped': 'max_minutes'}]}
    page = pilot.page(record).partition('## gowalla')[2]
    assert 'training pairs. Epochs are selected on TEST' in page and '| TV-Diff, NOT CONVERGED | 0 |' in page
    page = pilot.page({**record, 'protocol': 'holdout'})
    assert 'totals differ by that alone.' in page and 'selected on TEST' not in page
    for wrong in ([], ['--work', str(tmp_path / 'later'), '--protocol', 'holdout', *options]):
        with pytest.raises(SystemExit):
            pilot.main(wrong)
