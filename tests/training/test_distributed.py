"""Several processes, by torchrun, against one."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest
import torch

pytest.importorskip('pytorch_lightning')
psutil = pytest.importorskip('psutil')
from tvdiff_pyg.distributed import rank, world_size  # noqa: E402
from tvdiff_pyg.training import Recipe, Run, TrainingInterrupted, fit, fitting  # noqa: E402
from tvdiff_pyg.training.data import EpochSampler, PartSampler  # noqa: E402
from tvdiff_pyg.training.folder import LAST, LOG, read_history  # noqa: E402

pytestmark = pytest.mark.skipif(not torch.distributed.is_available() or os.name == 'nt', reason='no torch.distributed')
SMALL = {'model.hidden_channels': '16', 'training.batch_size': '125', 'training.thermo_users': '0',
         'training.patience': '100'}
ENVIRONMENT = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}  # two processes need two GPUs, or none
DETERMINED = {'model.dropout': '0', 'diffusion.scale': '0', 'diffusion.num_steps': '1', 'loss.temperature': '0'}


def _command(out: Path, processes: int, settings: Dict[str, str], *more: str) -> List[str]:
    launcher = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(processes)]
    return [sys.executable, *(launcher if processes > 1 else []), '-m', 'tvdiff_pyg', 'fit', '--recipe',
            'movielens-small', '--out', str(out), *(f'--{name}={value}' for name, value in
                                                    {**SMALL, **settings}.items()), *more]


def _train(out: Path, processes: int, settings: Dict[str, str], *more: str) -> Tuple[Run, str]:
    done = subprocess.run(_command(out, processes, settings, *more), env=ENVIRONMENT,
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return Run.load(out), done.stdout


def _history(run: Run) -> List[Dict[str, float]]:
    return [{name: value for name, value in row.items() if name != 'seconds'} for row in read_history(run.folder)]


def _same(one: Run, other: Run) -> None:
    assert one.metrics['test'] == other.metrics['test'] and one.metrics['validation'] == other.metrics['validation']
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name


def test_two_processes_end_in_the_weights_of_one(tmp_path: Path) -> None:
    """Sixty steps of a random training: unequal parts, hard negatives, averaged weights."""
    settings = {'training.num_parts': '2', 'training.max_epochs': '10', 'training.average': '0.9'}
    one, _ = _train(tmp_path / 'one', 1, settings)
    two, output = _train(tmp_path / 'two', 2, settings)
    _same(one, two)
    assert two.metrics['device'].endswith('2 processes') and one.metrics['epochs'] == 10
    for row, other in zip(_history(one), _history(two)):
        assert other == pytest.approx(row, rel=1e-12)
    assert output.count('epoch   9') == output.count('precision@20') == 1  # only the first process speaks
    assert torch.equal(one.evaluate().per_user['recall@20'], two.evaluate().per_user['recall@20'])


def test_two_processes_follow_one_that_takes_whole_batches(tmp_path: Path) -> None:
    """Without anything random in it, the parts do not matter either."""
    settings = {**DETERMINED, 'training.max_epochs': '9'}
    one, _ = _train(tmp_path / 'one', 1, settings)
    two, _ = _train(tmp_path / 'two', 2, {**settings, 'training.num_parts': '4'})
    losses = [[row['loss'] for row in read_history(run.folder)] for run in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5) and losses[0][-1] < losses[0][0]
    assert two.metrics['test'] == pytest.approx(one.metrics['test'], abs=1e-3)


def test_a_killed_worker_ends_the_job_and_the_run_goes_on(tmp_path: Path) -> None:
    settings = {'training.num_parts': '2', 'training.max_epochs': '12'}
    out = tmp_path / 'killed'
    job = subprocess.Popen(_command(out, 2, settings), env=ENVIRONMENT,
                           stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while not (out / LAST).is_file() or len((out / LOG).read_text().splitlines()) < 3:
            assert job.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        workers = [child for child in psutil.Process(job.pid).children() if child.environ().get('RANK') == '1']
        workers[0].send_signal(signal.SIGKILL)
        errors = job.communicate(timeout=60)[1]
    finally:
        job.kill()
    assert job.returncode != 0 and 'another process of this run has ended' in errors and '--resume' in errors
    assert not (out / 'metrics.json').exists()
    resumed, _ = _train(out, 1, settings, '--resume')  # by another number of processes
    undisturbed, _ = _train(tmp_path / 'one', 1, settings)
    _same(resumed, undisturbed)
    assert len(read_history(out)) == 12


@pytest.mark.parametrize('size', [1, 7, 20, 43])
@pytest.mark.parametrize('parts', [1, 3, 4])
def test_parts_make_up_the_batches_whoever_works_on_them(size: int, parts: int) -> None:
    batches = list(PartSampler(EpochSampler(size, 0), 10))
    assert [len(batch) for batch in batches] == [min(10, size - start) for start in range(0, size, 10)]
    alone = PartSampler(EpochSampler(size, 0), 10, parts)
    assert [alone.number(index) for index in range(len(alone))] == list(range(parts)) * len(batches)
    weights = [alone.weight(index) for index in range(len(alone))]
    content = [part if weight else [] for part, weight in zip(alone, weights)]
    for number, batch in enumerate(batches):
        mine = slice(number * parts, (number + 1) * parts)
        assert sum(content[mine], []) == batch and sum(weights[mine]) == pytest.approx(parts)
        assert weights[mine] == pytest.approx([len(part) * parts / len(batch) for part in content[mine]])
    assert all(list(alone))  # none is empty
    shared = [PartSampler(EpochSampler(size, 0), 10, parts, process, parts) for process in range(parts)]
    assert [part for step in zip(*shared) for part in step] == list(alone)
    assert [sampler.number(0) for sampler in shared] == list(range(parts))


def test_what_processes_cannot_share_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (rank(), world_size()) == (0, 1)
    monkeypatch.setattr(fitting, 'world_size', lambda: 2)
    with pytest.raises(ValueError, match='must be started by torchrun'):
        fit(Recipe.from_dict({'dataset': {'name': 'movielens-small'}}), tmp_path / 'run', progress=False)
    monkeypatch.setattr(fitting, 'launched', lambda: True)
    cases: List[Tuple[Dict[str, Any], str]] = [
        ({}, "'training.num_parts' must be a multiple of the number of processes, 2; got 1"),
        ({'model': {'name': 'ease'}}, 'closed form, by one process'),
        ({'model': {'name': 'diffrec', 'hidden_channels': 8}, 'training': {'num_parts': 2}},
         "'diffusion.timesteps' loss-history"),
        ({'model': {'energy_items': 50}, 'training': {'num_parts': 2, 'optimizer': 'row-lazy-adam'}},
         "'training.optimizer' row-lazy-adam")]
    for values, message in cases:
        recipe = Recipe.from_dict({'dataset': {'name': 'movielens-small'}, **values})
        with pytest.raises(ValueError, match=message):
            fit(recipe, tmp_path / 'run', progress=False)
        assert not (tmp_path / 'run').exists()


def test_a_lost_process_is_told_from_other_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('tvdiff_pyg.distributed.launched', lambda: True)
    monkeypatch.setattr(fitting, 'process_group', nullcontext)
    recipe = Recipe.from_dict({'dataset': {'name': 'movielens-small'}})
    for error, expected in ((RuntimeError('[gloo/pair.cc] Connection closed by peer'), TrainingInterrupted),
                            (torch.distributed.DistNetworkError('timeout'), TrainingInterrupted),
                            (RuntimeError('mat1 and mat2 shapes cannot be multiplied'), RuntimeError)):
        def fail(*options: Any, raised: RuntimeError = error) -> None:
            raise raised

        monkeypatch.setattr(fitting, '_fit', fail)
        with pytest.raises(expected) as found:
            fit(recipe, tmp_path / 'run')
        assert (found.type is TrainingInterrupted) == (expected is TrainingInterrupted)
        assert '--resume' not in str(found.value)  # there is nothing yet
