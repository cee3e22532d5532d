"""The same seed means the same model, whatever the number of threads."""
from __future__ import annotations

from pathlib import Path
from typing import Dict, Iterator, Tuple

import pytest
import torch
from torch import Tensor

pytest.importorskip('pytorch_lightning')
from tvdiff_pyg.training import Recipe, Run, fit  # noqa: E402

USERS, ITEMS = 600, 1500  # a batch's scores are cut up between threads from 32,768 on
MODELS = ['tv-diff', 'diffrec', 'lightgcn', 'ease', 'gf-cf']


@pytest.fixture(autouse=True)
def _one_thread_again() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope='module')
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('data') / 'ratings.csv'
    draw = torch.Generator().manual_seed(0)
    chance = torch.rand(USERS, 1, generator=draw) * torch.rand(ITEMS, generator=draw) ** 4 * 0.3
    pairs = (torch.rand(USERS, ITEMS, generator=draw) < chance).nonzero()
    path.write_text('\n'.join(['user,item', *(f'{user},{item}' for user, item in pairs.tolist())]) + '\n')
    return path


def _trained(threads: int, model: str, file: Path, out: Path) -> Tuple[Run, Tensor]:
    torch.set_num_threads(threads)
    values: Dict[str, Dict[str, object]] = {
        'dataset': {'name': 'interaction-file', 'path': str(file)}, 'model': {'name': model}, 'training': {}}
    if model not in ('ease', 'gf-cf'):
        values['training'], values['model']['hidden_channels'] = {'max_epochs': 3, 'batch_size': 256}, 64
    run = fit(Recipe.from_dict(values), out, progress=False)
    with torch.no_grad():
        return run, run.model.scorer()(torch.arange(128))


@pytest.mark.parametrize('model', MODELS)
def test_the_number_of_threads_changes_no_more_than_rounding(model: str, file: Path, tmp_path: Path) -> None:
    one, scores = _trained(1, model, file, tmp_path / '1')
    for threads in (2, 4):
        run, others = _trained(threads, model, file, tmp_path / str(threads))
        assert float((others - scores).abs().max() / scores.abs().max()) < 1e-4
        for name, value in one.metrics['test'].items():
            assert abs(run.metrics['test'][name] - value) < 2e-3, name
