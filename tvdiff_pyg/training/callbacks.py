"""What watches a training: energy and entropy, false negatives, signatures of failure."""
from __future__ import annotations

from typing import Any, Container, Dict, List, Optional

import pytorch_lightning as pl
import torch
from torch import Tensor

from tvdiff_pyg.diagnosis import Diagnosis, diagnose
from tvdiff_pyg.distributed import sum_over_processes
from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.thermodynamics import sample_users, thermodynamics
from tvdiff_pyg.typing import Scorer


SIMILAR_USERS = 64


class EpochWatcher(pl.Callback):
    """Base: adds columns to the training history; :class:`RecommenderModule` asks at the end of every epoch."""

    def watch(self, model: torch.nn.Module, scorer: Scorer) -> Dict[str, float]:
        """Return the columns of the epoch that ends.

        Args:
            model: the model in training.
            scorer: its scores by the weights that are evaluated.
        """
        raise NotImplementedError


class ThermodynamicsWatcher(EpochWatcher):
    """Logs, as means over users, ``delta_energy`` and ``delta_entropy`` (bits) from the data, ``uniformity`` and
    ``similarity``.

    Uniformity is the entropy over its largest value, log2 N (:func:`tvdiff_pyg.thermodynamics.thermodynamics`),
    similarity the mean cosine of two users' scores, of up to :data:`SIMILAR_USERS` of them.

    Args:
        interactions: the training interactions.
        num_users: how many users to look at, the same in every epoch, >= 2; each costs one row of scores.
        seed: of their choice.
    """

    def __init__(self, interactions: InteractionMatrix, num_users: int = 256, seed: int = 0) -> None:
        self.interactions = interactions
        self.users = sample_users(interactions, num_users, torch.Generator().manual_seed(seed))

    def watch(self, model: torch.nn.Module, scorer: Scorer) -> Dict[str, float]:
        device = self.interactions.col.device  # it moves with the model
        seen = thermodynamics(scorer, self.interactions, getattr(model, 'distribution', 'clip'),
                              users=self.users.to(device))
        largest = torch.tensor(self.interactions.num_items, dtype=torch.float64).log2()
        with torch.no_grad():
            some = self.users[::-(-self.users.numel() // SIMILAR_USERS)].to(device)
            unit = torch.nn.functional.normalize(scorer(some).double(), dim=1)
        number = unit.size(0)
        similarity = (unit.sum(0).square().sum() - unit.square().sum()) / (number * (number - 1)) if number > 1 else 0
        return {'delta_energy': float(seen.delta_energy.mean()), 'delta_entropy': float(seen.delta_entropy.mean()),
                'uniformity': float(seen.entropy.mean() / largest), 'similarity': float(similarity)}


class FalseNegativesWatcher(EpochWatcher):
    """Logs ``false_negatives``, the share of the drawn negatives that are held-out positives, and what chance gives.

    ``false_negatives_by_chance`` is the share that a uniform draw for the same rows would have in the mean. Nothing is
    logged of a model without a ``sampler``, or in an epoch that draws nothing.

    Args:
        held_out: the positives that training does not see.
    """

    def __init__(self, held_out: InteractionMatrix) -> None:
        self.held_out = held_out
        self._hook: Optional[Any] = None
        self._clear()

    def _clear(self) -> None:
        self.drawn = 0
        self.counts: List[Tensor] = []  # on the device: read once an epoch

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.held_out.to(pl_module.device)
        sampler = getattr(pl_module.model, 'sampler', None)
        if sampler is not None:
            self._hook = sampler.register_forward_hook(self._count, with_kwargs=True)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._clear()

    def teardown(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _count(self, sampler: torch.nn.Module, args: Any, options: Any, output: Any) -> None:
        interactions, users = (options.get(name, args[position] if position < len(args) else None)
                               for position, name in enumerate(('interactions', 'users')))
        row, item = output
        user = users[row]
        unobserved: Tensor = interactions.num_items - interactions.user_degree[user]
        self.drawn += row.numel()
        expected = (self.held_out.user_degree[user] / unobserved).sum()
        self.counts.append(torch.stack([self.held_out.contains(user, item).sum().to(expected.dtype), expected]))

    def watch(self, model: torch.nn.Module, scorer: Scorer) -> Dict[str, float]:
        found = torch.stack(self.counts).cpu().double().sum(0) if self.counts else torch.zeros(2, dtype=torch.float64)
        counts = torch.cat([torch.tensor([self.drawn], dtype=torch.float64), found])
        sum_over_processes(counts)
        drawn, false, expected = counts.tolist()
        return {'false_negatives': false / drawn, 'false_negatives_by_chance': expected / drawn} if drawn else {}


class FailureSignatures(pl.Callback):
    """Says what goes wrong as soon as the history shows it (:func:`tvdiff_pyg.diagnosis.diagnose`), once a session.

    Args:
        temperature: of the loss.
        settings: names of the settings that advice may hold; ``None`` for all.

    Attributes:
        found: the diagnoses so far.
    """

    def __init__(self, temperature: float = 1.0, settings: Optional[Container[str]] = None) -> None:
        self.temperature, self.settings = temperature, settings
        self.found: List[Diagnosis] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._look(pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._look(pl_module)

    def _look(self, module: Any) -> None:
        known = {diagnosis.name for diagnosis in self.found}
        for diagnosis in diagnose(module.history, module.monitor, self.temperature, self.settings):
            if diagnosis.name not in known:
                self.found.append(diagnosis)
                module.print(str(diagnosis), flush=True)
