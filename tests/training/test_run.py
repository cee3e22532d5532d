"""Training into a run folder."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

import pytest
import torch

pytest.importorskip('pytorch_lightning')
from tvdiff_pyg.nn import TVDiff  # noqa: E402
from tvdiff_pyg.training import Recipe, Run, TrainingDiverged, fit  # noqa: E402
from tvdiff_pyg.typing import Batch, LossTerms  # noqa: E402


def _recipe(ratings_file: Path, **training: Any) -> Recipe:
    values: Dict[str, Any] = {'max_epochs': 3, 'batch_size': 16, 'ks': [20], **training}
    return Recipe.from_dict({'dataset': {'name': 'interaction-file', 'path': str(ratings_file)},
                             'model': {'hidden_channels': 8}, 'training': values})


def test_a_run_read_back_is_the_run_that_was_fitted(ratings_file: Path, tmp_path: Path) -> None:
    fitted = fit(_recipe(ratings_file), tmp_path / 'run', progress=False)
    read = Run.load(tmp_path / 'run')
    assert read.metrics == fitted.metrics and read.recipe == fitted.recipe
    users = fitted.split.data['user'].original_id[:3]
    assert read.recommend(users, 5) == fitted.recommend(users, 5)
    assert read.evaluate('test').mean == fitted.metrics['test']
    assert read.evaluate('validation').mean == fitted.metrics['validation']


def test_the_weights_are_those_of_the_best_epoch(ratings_file: Path, tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is spoilt after its second epoch: selection must go back, and patience must stop it."""
    calls = []
    loss = TVDiff.training_loss

    def spoilt(self: TVDiff, batch: Batch, generator: Any = None) -> LossTerms:
        calls.append(batch)
        if len(calls) > 6:  # three batches an epoch
            with torch.no_grad():
                self.denoiser.item_weight.zero_()
        return loss(self, batch, generator)

    monkeypatch.setattr(TVDiff, 'training_loss', spoilt)
    run = fit(_recipe(ratings_file, max_epochs=30, patience=2), tmp_path / 'run', progress=False)
    assert run.metrics['epoch'] <= 1 and run.metrics['stopped'] == 'patience'
    assert run.metrics['epochs'] <= run.metrics['epoch'] + 1 + 2 + 1
    assert float(run.model.denoiser.item_weight.detach().abs().sum()) > 1


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(
        ratings_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    loss = TVDiff.training_loss

    def diverging(self: TVDiff, batch: Batch, generator: Any = None) -> LossTerms:
        calls.append(batch)
        terms = loss(self, batch, generator)
        return terms if len(calls) <= 4 else terms._replace(loss=terms.loss * float('nan'))

    monkeypatch.setattr(TVDiff, 'training_loss', diverging)
    with pytest.raises(TrainingDiverged, match='became nan in epoch 1.*lower training.lr'):
        fit(_recipe(ratings_file), tmp_path / 'run', progress=False)
    checkpoint = torch.load(tmp_path / 'run' / 'checkpoints' / 'last.ckpt', weights_only=True)
    assert checkpoint['epoch'] == 0
    assert all(bool(value.isfinite().all()) for value in checkpoint['state_dict'].values())


def test_a_catalogue_that_cannot_be_selected_on_is_refused(tmp_path: Path) -> None:
    file = tmp_path / 'few.csv'
    file.write_text('user,item\n' + ''.join(f'u{u},i{i}\n' for u in range(5) for i in range(8)))
    with pytest.raises(ValueError, match='has 8 items.*needs at least 20'):
        fit(_recipe(file), tmp_path / 'run', progress=False)
    assert not (tmp_path / 'run').exists()


def test_k_above_the_catalogue_is_refused_before_anything_is_written(ratings_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'k' must lie in 1\.\.30, the number of items; got 31"):
        fit(_recipe(ratings_file, ks=[31]), tmp_path / 'run', progress=False)
    assert not (tmp_path / 'run').exists()


def test_an_unseeded_generator_of_the_caller_is_left_alone(ratings_file: Path, tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    fit(_recipe(ratings_file, max_epochs=1), tmp_path / 'run', progress=False)
    assert torch.equal(torch.random.get_rng_state(), state)
