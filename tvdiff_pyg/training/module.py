"""The Lightning module: one loop for every model that trains."""
from __future__ import annotations

import csv
import io
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Container, Dict, List, Optional

import pytorch_lightning as pl
import torch
from torch import Tensor

from tvdiff_pyg.diagnosis import Diagnosis, diverged
from tvdiff_pyg.distributed import longest_of_processes, sum_over_processes
from tvdiff_pyg.evaluation import RankingEvaluator
from tvdiff_pyg.files import write_text
from tvdiff_pyg.sampling import NegativeSampler
from tvdiff_pyg.training.callbacks import EpochWatcher
from tvdiff_pyg.training.data import PartSampler, derived_seed
from tvdiff_pyg.training.optimizer import RowLazyAdam, WeightAverage
from tvdiff_pyg.typing import Batch, LossTerms, Scorer

SELECTION_K = 20
SELECTION_METRIC = f'recall@{SELECTION_K}'


class TrainingDiverged(RuntimeError):
    """The loss is no longer a finite number.

    Args:
        message: what happened and what to do.
        diagnosis: the same as a diagnosis.
    """

    def __init__(self, message: str, diagnosis: Diagnosis) -> None:
        super().__init__(message)
        self.diagnosis = diagnosis


class TrainingInterrupted(RuntimeError):
    """Training was stopped from outside; the message says how to go on."""


class RecommenderModule(pl.LightningModule):
    """Trains a model, evaluates it after every epoch, and keeps the history.

    All randomness of an epoch comes from one generator a part of the batches, seeded by ``(seed, epoch, part)``, so
    that a run resumed at an epoch's end goes on as if it had never stopped, on as many processes as there are then.

    Args:
        model: a module with ``training_loss`` and ``scorer``.
        evaluator: what the best epoch is selected on.
        selected_on: name of that part, ``validation`` or ``test``: the prefix of its metrics in the log.
        lr: Adam's learning rate.
        weight_decay: decoupled weight decay.
        seed: the run's seed.
        log_file: CSV file of one line an epoch, written anew after each.
        optimizer: ``adam`` or ``row-lazy-adam``.
        max_minutes: stop at the end of the epoch in which training has taken so long.
        lr_decay: factor of the learning rate after every epoch.
        beta2: decay of Adam's second moments.
        average: decay of a moving average of the weights, in 0..1 (see :class:`WeightAverage`), which is what is
            evaluated and kept; ``None`` for the weights themselves.
        settings: names of the settings that a diagnosis may advise to change; ``None`` for all there are.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        evaluator: RankingEvaluator,
        selected_on: str,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        seed: int = 0,
        log_file: Optional[Path] = None,
        optimizer: str = 'adam',
        max_minutes: Optional[float] = None,
        lr_decay: float = 1.0,
        beta2: float = 0.999,
        average: Optional[float] = None,
        settings: Optional[Container[str]] = None,
    ) -> None:
        super().__init__()
        self.model, self.evaluator, self.selected_on = model, evaluator, selected_on
        self.lr, self.weight_decay, self.seed, self.log_file = lr, weight_decay, seed, log_file
        self.optimizer, self.max_minutes, self.lr_decay = optimizer, max_minutes, lr_decay
        self.beta2, self.settings = beta2, settings
        self.average = None if average is None else WeightAverage(model, average)
        self.history: List[Dict[str, float]] = []
        self.earlier_seconds, self._earlier_device = 0.0, 'cpu'
        self.generators: Dict[int, torch.Generator] = {}
        self._sums: List[Tensor] = []
        self._started = 0.0

    @property
    def monitor(self) -> str:
        """The logged name of the selection metric."""
        return f'{self.selected_on}/{SELECTION_METRIC}'

    @property
    def device_type(self) -> str:
        """Where the last epoch was trained."""
        return next((generator.device.type for generator in self.generators.values()), self._earlier_device)

    @property
    def out_of_time(self) -> bool:
        """Whether the epochs so far have taken all the time there is."""
        return self.max_minutes is not None and sum(row['seconds'] for row in self.history) >= 60 * self.max_minutes

    def on_fit_start(self) -> None:
        if self.average is not None:
            self.average.to(self.device)

    def on_train_epoch_start(self) -> None:
        self.generators = {}
        self._sums, self._started = [], time.perf_counter()
        for part in self.model.modules():
            if isinstance(part, NegativeSampler):
                part.set_epoch(self.current_epoch)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        model: Any = self.model
        parts = self._parts
        terms: LossTerms = model.training_loss(batch, self._generator(parts.number(batch_index)))
        if not bool(terms.loss.isfinite()):
            raise self._diverged(f'the loss became {float(terms.loss.detach())}')
        weight = parts.weight(batch_index)
        size = batch.users.numel() if weight else 0
        self.log_dict({'energy': terms.energy, 'entropy': terms.entropy}, prog_bar=True, on_step=True, on_epoch=False)
        self._sums.append(torch.stack([terms.loss.detach(), terms.energy, terms.entropy, torch.ones_like(terms.loss)])
                          .double() * size)
        return terms.loss * weight

    @property
    def _parts(self) -> PartSampler:
        return self.trainer.datamodule.parts  # type: ignore[attr-defined]

    def _generator(self, part: int) -> torch.Generator:
        if part not in self.generators:
            self.generators[part] = torch.Generator(device=self.device)
            self.generators[part].manual_seed(derived_seed(self.seed, self.current_epoch, 1, part))
        return self.generators[part]

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_index: int) -> None:
        if self.average is not None and (batch_index + 1) % self._parts.own == 0:
            self.average.update(self.model)

    def on_train_epoch_end(self) -> None:
        model: Any = self.model
        sums = torch.stack(self._sums).sum(0)
        sum_over_processes(sums)
        loss, energy, entropy, count = sums.tolist()
        row: Dict[str, float] = {'epoch': self.current_epoch, 'loss': loss / count, 'energy': energy / count,
                                 'entropy': entropy / count}
        if not all(bool(parameter.isfinite().all()) for parameter in self.model.parameters()):
            raise self._diverged('a weight is no longer finite')
        with nullcontext() if self.average is None else self.average.in_place_of(self.model):
            scorer = self._finite(model.scorer())
            for name, value in self.evaluator(scorer).mean.items():
                row[f'{self.selected_on}/{name}'] = value
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, EpochWatcher):
                    row.update(callback.watch(model, scorer))
        row['seconds'] = longest_of_processes(time.perf_counter() - self._started)
        self.history.append(row)
        self.log(self.monitor, row[self.monitor], prog_bar=True)
        self._write_log()
        if self.out_of_time:
            self.trainer.should_stop = True
        if self.trainer.progress_bar_callback is None:
            self.print(f"epoch {self.current_epoch:3d}  energy {row['energy']:.6f}  entropy {row['entropy']:.6f}  "
                       f"{self.monitor} {row[self.monitor]:.4f}  {row['seconds']:.1f} s", flush=True)

    def _finite(self, scorer: Scorer) -> Scorer:
        """Return a scorer that ends the training where scores overflow, though every weight is finite."""
        def checked(users: Tensor) -> Tensor:
            scores = scorer(users)
            if not bool(scores.sum().isfinite()):  # one read of what has taken 2 d operations an entry
                raise self._diverged('a score is no longer finite')
            return scores

        return checked

    def _diverged(self, what: str) -> TrainingDiverged:
        diagnosis = diverged(f'{what} in epoch {self.current_epoch}', self.settings)
        return TrainingDiverged(f'{diagnosis.saw}: try {diagnosis.change}', diagnosis)

    def _write_log(self) -> None:
        if self.log_file is None or not self.trainer.is_global_zero:
            return
        text = io.StringIO()
        names = dict.fromkeys(name for row in self.history for name in row)  # a watcher may have had nothing to say
        writer = csv.DictWriter(text, list(names), lineterminator='\n')
        writer.writeheader()
        writer.writerows(self.history)
        write_text(self.log_file, text.getvalue())

    def on_save_checkpoint(self, checkpoint: Dict[str, Any]) -> None:
        checkpoint['history'], checkpoint['device'] = self.history, self.device_type
        if self.average is not None:
            checkpoint['average'] = self.average.state_dict()

    def on_load_checkpoint(self, checkpoint: Dict[str, Any]) -> None:
        self.restore_history(checkpoint)
        if self.average is not None:
            self.average.load_state_dict(checkpoint['average'])

    def take_weights(self, checkpoint: Dict[str, Any]) -> None:
        """Give the model the weights of a checkpoint that were evaluated: the average, where there is one."""
        self.model.load_state_dict({name.removeprefix('model.'): value for name, value
                                    in checkpoint['state_dict'].items() if name.startswith('model.')})
        if self.average is not None:
            self.average.load_state_dict(checkpoint['average'])
            self.average.copy_to(self.model)

    def restore_history(self, checkpoint: Dict[str, Any]) -> None:
        """Take over the history of the epochs before a checkpoint, the time that they took, and where."""
        self.history, self._earlier_device = list(checkpoint['history']), checkpoint.get('device', 'cpu')
        self.earlier_seconds = sum(row['seconds'] for row in self.history)

    def configure_optimizers(self) -> Any:
        optimizer: torch.optim.Optimizer
        betas = 0.9, self.beta2
        if self.optimizer == 'row-lazy-adam':
            optimizer = RowLazyAdam(self.parameters(), self.lr, betas)
        elif self.weight_decay:
            optimizer = torch.optim.AdamW(self.parameters(), self.lr, betas, weight_decay=self.weight_decay, fused=True)
        else:
            optimizer = torch.optim.Adam(self.parameters(), self.lr, betas, fused=True)
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, self.lr_decay)]
