"""Runs that are killed, or whose disk is full, and that go on."""
from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import pytest
import torch

pytest.importorskip('pytorch_lightning')
from tvdiff_pyg.training import Run  # noqa: E402
from tvdiff_pyg.training.folder import BEST, LAST, METRICS, WEIGHTS, read_history  # noqa: E402

ENVIRONMENT = {**os.environ, 'OMP_NUM_THREADS': '1'}
KILL_AT_WRITE = """
import os, signal, sys
from tvdiff_pyg.cli import main
number, after, replace, calls = int(sys.argv[1]), sys.argv[2] == 'after', os.replace, []
def killing(source, target):
    calls.append(target)
    if len(calls) == number and not after:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
    if len(calls) == number:
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = killing
main(sys.argv[3:])
print(len(calls), 'writes')
"""
FULL_DISK = """
import resource, signal, sys
from tvdiff_pyg.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
main(sys.argv[2:])
"""


def _program(code: str, *arguments: Any) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, '-c', code, *map(str, arguments)], env=ENVIRONMENT, capture_output=True,
                          text=True, timeout=300)


def _state(folder: Path) -> Dict[str, Any]:
    """Return what must not depend on how often a run was stopped: all but times."""
    history = [{name: value for name, value in row.items() if name != 'seconds'} for row in read_history(folder)]
    metrics = Run.load(folder).metrics
    return {'weights': (folder / WEIGHTS).read_bytes(), 'history': history,
            **{name: metrics[name] for name in ('test', 'validation', 'epoch', 'epochs', 'stopped', 'files')}}


@pytest.fixture(scope='module')
def options(fit_options: Callable[..., list]) -> List[str]:
    return [*fit_options('--training.average', '0.5'), '--max-epochs', '5']


@pytest.fixture(scope='module')
def undisturbed(options: List[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('undisturbed') / 'run'
    done = _program(KILL_AT_WRITE, 0, 'before', *options, '--out', out)
    assert done.returncode == 0, done.stderr
    return out


def _killed_at(number: int, when: str, options: List[str], out: Path) -> int:
    """Kill a run at one of its writes, resume it, and return how the first process ended."""
    first = _program(KILL_AT_WRITE, number, when, *options, '--out', out)
    if first.returncode == 0:
        return 0
    assert first.returncode == -signal.SIGKILL, first.stderr
    begun = ['--resume'] if (out / 'config.yaml').is_file() else []
    second = _program(KILL_AT_WRITE, 0, 'before', *options, '--out', out if begun else out.with_name('again'), *begun)
    assert second.returncode == 0, second.stderr
    assert not begun or not list(out.rglob('.*.part'))
    if not begun:
        (out.with_name('again')).rename(out.with_name('moved'))
    return first.returncode


@pytest.mark.parametrize('number, when', [(8, 'before'), (9, 'after')])
def test_killed_at_a_write(number: int, when: str, options: List[str], undisturbed: Path, tmp_path: Path) -> None:
    """At the third epoch's checkpoints."""
    out = tmp_path / 'run'
    assert _killed_at(number, when, options, out) == -signal.SIGKILL
    assert _state(out) == _state(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize('when', ['before', 'after'])
def test_killed_at_every_write(when: str, options: List[str], undisturbed: Path, tmp_path: Path) -> None:
    number = 1
    while True:
        out = tmp_path / str(number) / 'run'
        if _killed_at(number, when, options, out) == 0:
            break
        finished = out if out.exists() and (out / METRICS).is_file() else out.with_name('moved')
        assert _state(finished) == _state(undisturbed), number
        number += 1
    assert number > 15


@pytest.mark.slow
def test_killed_at_twenty_random_moments(undisturbed: Path, options: List[str], tmp_path: Path) -> None:
    draw, kills, out = random.Random(0), 0, tmp_path / 'run'
    longer = [*options, '--max-epochs', '240', '--training.patience', '1000']  # a fifth of a second is some five epochs
    alone = _program(KILL_AT_WRITE, 0, 'before', *longer, '--out', tmp_path / 'alone')
    assert alone.returncode == 0, alone.stderr
    number = 0
    while not (out / METRICS).is_file():
        resume = ['--resume'] if (out / 'config.yaml').is_file() else []
        job = subprocess.Popen([sys.executable, '-m', 'tvdiff_pyg', *longer, '--out', str(out), *resume],
                               env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        started = len(read_history(out))
        until: Optional[float] = None
        while job.poll() is None and kills < 20:
            if until is None and len(read_history(out)) > started:  # it trains
                until = time.monotonic() + draw.uniform(0, 0.3)
            if until is not None and time.monotonic() > until:
                job.kill()
                kills += 1
                break
            time.sleep(0.005)
        errors = job.communicate(timeout=300)[1]
        assert job.returncode in (0, -signal.SIGKILL), errors
        number += 1
        assert number < 60
    assert kills == 20
    assert _state(out) == _state(tmp_path / 'alone')


def test_a_full_disk_keeps_the_last_good_state(options: List[str], undisturbed: Path, tmp_path: Path) -> None:
    pytest.importorskip('resource')
    out, more = tmp_path / 'run', [*options, '--out', tmp_path / 'run']
    assert _program(KILL_AT_WRITE, 0, 'before', *more, '--max-epochs', '2').returncode == 0
    before = {name: (out / name).read_bytes() for name in (BEST, LAST)}
    size = min(map(len, before.values()))
    full = _program(FULL_DISK, size // 2, *more, '--resume')
    assert full.returncode == 2 and 'cannot be written' in full.stderr and full.stderr.count('\n') == 1, full.stderr
    assert {name: (out / name).read_bytes() for name in (BEST, LAST)} == before
    assert not list((out / 'checkpoints').glob('.*'))
    assert _program(KILL_AT_WRITE, 0, 'before', *more, '--resume').returncode == 0
    assert _state(out) == _state(undisturbed)


def test_a_folder_that_cannot_be_written(options: List[str]) -> None:
    if not Path('/sys/kernel').is_dir():
        pytest.skip('no /sys')
    done = _program(KILL_AT_WRITE, 0, 'before', *options, '--out', '/sys/kernel/run')
    assert done.returncode == 2 and '/sys/kernel/run' in done.stderr and done.stderr.count('\n') == 1, done.stderr


def test_checkpoints_hold_nothing_that_can_run(undisturbed: Path) -> None:
    for name in (BEST, LAST):
        assert torch.load(undisturbed / name, weights_only=True)['epoch'] >= 0
