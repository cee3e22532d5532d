"""Where the benchmark data lie, if they are here, and small runs that several tests read."""
from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, ContextManager, Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope='session')
def one_thread() -> None:
    """Small arrays: threads only stand in each other's way, by a factor of 50 on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope='session')
def data_root() -> Path:
    """The folder that holds NAME/raw/: $TVDIFF_DATA, or shared/data beside the checkout."""
    root = Path(os.environ.get('TVDIFF_DATA') or Path(__file__).resolve().parents[2] / 'shared' / 'data')
    if not (root / 'lastfm' / 'raw').is_dir():
        pytest.skip(f'the benchmark data are not here: no lastfm/raw in {root} (set TVDIFF_DATA)')
    return root


@pytest.fixture(scope='session')
def ratings_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of 40 users x 30 items in two blocks, with ids that are not numbers."""
    path = tmp_path_factory.mktemp('ratings') / 'ratings.csv'
    lines = ['user,item,rating']
    for user in range(40):
        for item in range(30):
            if (user + item) % 2 == 0 and (user * 7 + item * 3) % 5:
                lines.append(f'u{user:02d},"item, {item:02d}",{4 + item % 2}')
    path.write_text('\n'.join(lines) + '\n')
    return path


@pytest.fixture(scope='session')
def fit_options(ratings_file: Path) -> Callable[..., list]:
    """The options of a run of a second, to which a test adds its own."""
    def options(*more: str) -> list:
        return ['fit', '--recipe', 'interaction-file', '--dataset.path', str(ratings_file), '--training.ks', '[5,20]',
                '--model.hidden_channels', '16', '--training.batch_size', '16', '--max-epochs', '4', *more]
    return options


@pytest.fixture(scope='session')
def run_folder(fit_options: Callable[..., list], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; tests read it only."""
    pytest.importorskip('pytorch_lightning')
    from tvdiff_pyg.cli import main

    out = tmp_path_factory.mktemp('runs') / 'run'
    main(fit_options('--out', str(out)))
    return out


@pytest.fixture
def fails(capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Runs a command that must fail, and returns its one line."""
    def _fails(*arguments: str) -> str:
        from tvdiff_pyg.cli import main

        with pytest.raises(SystemExit) as exit_info:
            main(list(arguments))
        assert exit_info.value.code == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and lines[0].startswith('tvdiff: error: '), lines
        return lines[0]

    return _fails


@pytest.fixture
def full_disk() -> Callable[[int], ContextManager[None]]:
    """Let no file grow beyond so many bytes within it, which programs meet as they meet a full disk."""
    resource = pytest.importorskip('resource')

    @contextmanager
    def _full_disk(size: int) -> Iterator[None]:  # no longer than that: where its output is a file, pytest writes too
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return _full_disk
