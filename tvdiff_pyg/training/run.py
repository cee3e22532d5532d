"""Run folders: training into one, and everything that is read from one afterwards."""
from __future__ import annotations

import csv
import json
import logging
import pickle
import platform
import sys
import time
import warnings
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Union

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.plugins.environments import TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor

from tvdiff_pyg import __version__
from tvdiff_pyg.datasets import file_sha256
from tvdiff_pyg.diagnosis import diagnose_all
from tvdiff_pyg.distributed import (
    barrier,
    first_process_first,
    launched,
    lost_process,
    nodes_and_devices,
    process_group,
    rank,
    world_size,
)
from tvdiff_pyg.evaluation import DEFAULT_KS, Evaluation, RankingEvaluator
from tvdiff_pyg.files import lock, write_json, write_text
from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn.models.base import InteractionModel
from tvdiff_pyg.retrieval import BLOCK_SIZE, check_k, fold_in, recommend, top_k
from tvdiff_pyg.split import PROTOCOLS, Split
from tvdiff_pyg.thermodynamics import Thermodynamics, sample_users, thermodynamics
from tvdiff_pyg.training.callbacks import FailureSignatures, FalseNegativesWatcher, ThermodynamicsWatcher
from tvdiff_pyg.training.data import InteractionDataModule
from tvdiff_pyg.training.memory import check_memory
from tvdiff_pyg.training.module import SELECTION_K, SELECTION_METRIC, RecommenderModule, TrainingInterrupted
from tvdiff_pyg.training.plots import save_figure, training_figure
from tvdiff_pyg.training.recipe import Recipe, build_model, load_data
from tvdiff_pyg.training.storage import (
    TENSORS,
    TEXT,
    AtomicCheckpoints,
    has_data,
    load_data_folder,
    load_weights,
    save_data,
    save_weights,
    split_checksum,
)
from tvdiff_pyg.typing import HistoryScorer, Scorer

CONFIG, METRICS, WEIGHTS, LOG, PLOT = 'config.yaml', 'metrics.json', 'weights.safetensors', 'log.csv', 'training.png'
PER_USER = 'per_user.safetensors'  # the test part's metrics user by user: for paired tests
LOCK = '.lock'
GROW = ('training.max_epochs', 'training.max_minutes', 'data_root')  # may change when a run is resumed
_HASHED = (WEIGHTS, TENSORS, TEXT)
BEST, LAST = 'checkpoints/best.ckpt', 'checkpoints/last.ckpt'


class RunError(ValueError):
    """A run folder is missing, incomplete or in the way; the message says what to do."""


@dataclass
class Settings:
    """All that a run is begun with; what ``config.yaml`` holds, in the form that ``tvdiff fit --config`` reads.

    Attributes:
        recipe: the settings of data, model and training.
        protocol: ``holdout`` or ``paper``.
        seed: the run's seed.
        data_root: the folder that holds ``NAME/raw/``, if one was named.
    """

    recipe: Recipe
    protocol: str = 'holdout'
    seed: int = 0
    data_root: Optional[str] = None

    def check(self) -> None:
        """Raise ``ValueError`` for a protocol or a seed that cannot be."""
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"'protocol' must be one of {', '.join(PROTOCOLS)}; got '{self.protocol}'")
        if not 0 <= self.seed < 2 ** 63:
            raise ValueError(f"'seed' must lie in 0..2^63-1, got {self.seed}")

    def to_dict(self) -> Dict[str, Any]:
        """Return nested plain values."""
        return {'protocol': self.protocol, 'seed': self.seed, 'data_root': self.data_root, **self.recipe.to_dict()}


def read_settings(folder: Path) -> Settings:
    """Read a run folder's ``config.yaml``.

    Raises:
        RunError: it is missing, broken, or not a run's.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise RunError(f"{folder} is not a run folder (it has no {CONFIG}): make one with 'tvdiff fit --out {folder}'")
    try:
        values = yaml.safe_load(path.read_text(encoding='utf-8'))
        about = {name: values.pop(name) for name in ('protocol', 'seed', 'data_root')}
        settings = Settings(Recipe.from_dict(values), **about)
        settings.check()
    except (yaml.YAMLError, OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} is not a run's ({' '.join(str(error).split())}): restore it, or train anew") from error
    return settings


def read_history(folder: Path) -> List[Dict[str, float]]:
    """Read a run folder's ``log.csv``, a row an epoch; empty where there is none."""
    if not (folder / LOG).is_file():
        return []
    with open(folder / LOG, encoding='utf-8') as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


@dataclass
class Run:
    """A finished run.

    Attributes:
        folder: where it lies.
        recipe: its settings.
        split: its interactions by purpose.
        model: the model with the weights of the best epoch.
        metrics: what ``metrics.json`` holds.
    """

    folder: Path
    recipe: Recipe
    split: Split
    model: InteractionModel
    metrics: Dict[str, Any]
    _index: Dict[str, Dict[str, int]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def load(cls, folder: Union[str, Path]) -> Run:
        """Read a finished run.

        Raises:
            RunError: the folder is not a run's, or its training has not finished.
            ValueError: the weights do not fit the settings.
        """
        folder = Path(folder)
        settings = read_settings(folder)
        if not (folder / METRICS).is_file():
            raise RunError(f"the run in {folder} has not finished: go on with 'tvdiff fit --resume --out {folder}'")
        try:
            metrics = json.loads((folder / METRICS).read_text(encoding='utf-8'))
            expected = {name: metrics['files'][name] for name in _HASHED}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f'{folder / METRICS} cannot be read ({error}): train the run anew') from error
        for name, checksum in expected.items():
            if file_sha256(folder / name) != checksum:
                raise RunError(f'{folder / name} is not the file that this run wrote: restore it, or train anew')
        split = Split.of(load_data_folder(folder), settings.protocol)
        model = build_model(settings.recipe, split.train, settings.seed)
        load_weights(model, folder / WEIGHTS)
        return cls(folder, settings.recipe, split, model.eval(), metrics)

    def evaluate(self, part: str = 'test', ks: Optional[Sequence[int]] = None) -> Evaluation:
        """Evaluate the model on the ``test`` or ``validation`` part.

        Raises:
            ValueError: the run has no such part, or a K above the number of items.
        """
        return self.split.evaluator(part, ks or report_ks(self.recipe, self.split))(self.model.scorer())

    def recommend(self, users: Sequence[str], k: int = 10, allow: Optional[Sequence[str]] = None,
                  deny: Sequence[str] = (), scorer: Optional[Scorer] = None,
                  block_size: int = BLOCK_SIZE) -> List[Dict[str, Any]]:
        """Return the ``k`` best unseen items of users named by their original ids.

        Args:
            users: original ids, none twice.
            k: length of the lists.
            allow: original ids of the only items that may be listed; all by default.
            deny: original ids of items that may not.
            scorer: ``model.scorer()``, where many calls share one.
            block_size: users to score at a time; see :func:`tvdiff_pyg.retrieval.top_k`.

        Returns:
            A dict a user: ``user``, and ``items``, a list of dicts of ``item`` (original id), ``score`` and what is
            known of the item (title, year, genres). Shorter than ``k`` where a user has fewer unseen items.

        Raises:
            ValueError: an unknown or repeated user, an unknown item, or ``k`` out of range.
        """
        check_k(k, self.model.num_items)
        index = self._positions('user', users)
        if len(set(index)) < len(index):
            twice = next(user for position, user in enumerate(users) if user in users[:position])
            raise ValueError(f"user '{twice}' is named twice")
        best = recommend(self.model, torch.tensor(index, dtype=torch.long), k, self.split.seen_when_testing,
                         self._allowed(allow, deny), scorer, block_size)
        return [{'user': user, 'items': self._listed(*lists)} for user, *lists in zip(users, *best)]

    def recommend_all(self, k: int = 10, allow: Optional[Sequence[str]] = None,
                      deny: Sequence[str] = ()) -> Iterator[Dict[str, Any]]:
        """Yield the same for every user, in the order of the training part; memory does not grow with their number.

        Raises:
            ValueError: as :meth:`recommend`.
        """
        check_k(k, self.model.num_items)
        allowed, scorer, names = self._allowed(allow, deny), self.model.scorer(), self.split.data.user_id
        for block in torch.arange(self.split.train.num_users).split(BLOCK_SIZE):
            best = top_k(scorer, block, k, self.split.seen_when_testing, allowed)
            for user, *lists in zip(block.tolist(), *best):
                yield {'user': names[user], 'items': self._listed(*lists)}

    def recommend_history(self, histories: Sequence[Sequence[str]], k: int = 10,
                          allow: Optional[Sequence[str]] = None, deny: Sequence[str] = (),
                          scorer: Optional[HistoryScorer] = None, block_size: int = BLOCK_SIZE) -> List[Dict[str, Any]]:
        """Return the ``k`` best further items of people who need not have been trained on (fold-in).

        Args:
            histories: for each person the original ids of what they have seen, in any order; repeated ids count once.
            k: length of the lists.
            allow, deny: as in :meth:`recommend`.
            scorer: ``model.history_scorer()``, where many calls share one.
            block_size: people to score at a time; see :func:`tvdiff_pyg.retrieval.top_k`.

        Returns:
            A dict a person, with ``items`` as in :meth:`recommend`.

        Raises:
            ValueError: a person without items, an unknown item, ``k`` out of range, or a model that knows only the
                users that it was trained on.
        """
        if not all(histories):
            raise ValueError("'histories' holds a person without items: name at least one")
        index = [self._positions('item', history) for history in histories]
        count = torch.tensor([len(items) for items in index], dtype=torch.long)
        row = torch.arange(len(index)).repeat_interleave(count)
        item = torch.tensor([position for items in index for position in items], dtype=torch.long)
        seen = InteractionMatrix(torch.stack([row, item]), len(index), self.model.num_items)
        best = fold_in(self.model, seen, k, self._allowed(allow, deny), scorer, block_size)
        return [{'items': self._listed(*lists)} for lists in zip(*best)]

    def _listed(self, items: Tensor, scores: Tensor) -> List[Dict[str, Any]]:
        return [{**self.item(item), 'score': score} for item, score in zip(items.tolist(), scores.tolist())
                if score != float('-inf')]

    def index(self, what: str) -> Dict[str, int]:
        """Return the index of each ``user`` or ``item`` by its original id."""
        if what not in self._index:
            self._index[what] = {name: number for number, name in enumerate(self.split.data[f'{what}_id'])}
        return self._index[what]

    def _positions(self, what: str, names: Sequence[str]) -> List[int]:
        """Return the indices of users or items named by their original ids."""
        known = self.index(what)
        for name in names:
            if name not in known:
                raise ValueError(f"{what} '{name}' does not occur in the training part of '{self.split.data.name}'")
        return [known[name] for name in names]

    def _allowed(self, allow: Optional[Sequence[str]], deny: Sequence[str]) -> Optional[Tensor]:
        if allow is None and not deny:
            return None
        allowed = torch.full((self.model.num_items,), allow is None)
        allowed[self._positions('item', allow or ())] = True
        allowed[self._positions('item', deny)] = False
        return allowed

    def thermodynamics(self, num_users: Optional[int] = None, published: bool = False, seed: int = 0) -> Thermodynamics:
        """Return energy and entropy of what the model makes of the training part.

        Args:
            num_users: look at a random sample of so many users; all by default.
            published: by the definitions of the paper's plots.
            seed: of the sample.
        """
        users = None if num_users is None else sample_users(
            self.split.train, num_users, torch.Generator().manual_seed(seed))
        return thermodynamics(self.model.scorer(), self.split.train, self.model.distribution, published, users)

    def history(self) -> List[Dict[str, float]]:
        """Return the training history, a row an epoch; empty where the model was solved in closed form."""
        return read_history(self.folder)

    def item(self, index: int) -> Dict[str, Any]:
        """Return an item's original id and what else is known of it."""
        data = self.split.data
        return {'item': data.item_id[index], **{name: value[index] for name, value in data.item_attributes.items()}}


def fit(
    recipe: Recipe,
    out: Union[str, Path],
    data_root: Union[str, Path, None] = None,
    protocol: str = 'holdout',
    seed: int = 0,
    resume: bool = False,
    progress: bool = True,
) -> Run:
    """Train by a recipe into a run folder, select the best epoch, test it, and return the finished run.

    The folder gets ``config.yaml``, the data's ids and edges, ``checkpoints/``, ``log.csv``, and at the end
    ``weights.safetensors``, ``training.png`` and, last of all, ``metrics.json``.

    Where ``torchrun`` started several processes, each calls this, and they share out the parts of every batch
    (``training.num_parts``) and the users of every evaluation; the first one writes, and ``out`` must be a folder that
    all can read. The result does not depend on how many there are.

    Args:
        recipe: the settings.
        out: the run folder; must not hold anything yet, unless resuming.
        data_root: the folder that holds ``NAME/raw/``.
        protocol: ``holdout`` selects the epoch on validation; ``paper`` on test, as the published figures did.
        seed: seed of weights, order, noise, dropout and negatives.
        resume: go on with the run in ``out``; its settings must be the same, but for ``training.max_epochs`` and
            ``max_minutes``.
        progress: show a progress bar instead of a line an epoch.

    Raises:
        RunError: ``out`` is in use, or does not fit what is to be resumed.
        DataError: the data set cannot be read.
        TrainingDiverged: the loss is no longer finite; the last good checkpoint is kept.
        TrainingInterrupted: training was stopped from outside, or another of its processes has ended.
        ValueError: a setting out of range.
    """
    out = Path(out)
    try:
        with process_group():
            return _fit(recipe, out, data_root, protocol, seed, resume, progress)
    except RuntimeError as error:
        if not lost_process(error):
            raise
        go_on = (': once its reason is mended, give the same command again with --resume' if (out / LAST).is_file()
                 else ': its own words say why')
        raise TrainingInterrupted(f'another process of this run has ended{go_on} ({error})') from error


def _fit(recipe: Recipe, out: Path, data_root: Union[str, Path, None], protocol: str, seed: int, resume: bool,
         progress: bool) -> Run:
    started = time.perf_counter()
    settings = Settings(recipe, protocol, seed, None if data_root is None else str(data_root))
    settings.check()
    if resume:
        finished = _check_resume(out, settings)
        if finished is not None:
            return finished
    elif rank() == 0 and out.exists() and (not out.is_dir() or any(out.iterdir())):
        go_on = ', or go on with that run by --resume' if (out / CONFIG).is_file() else ''
        raise RunError(f'{out} exists already: name another folder with --out{go_on}')

    with first_process_first():
        if resume and has_data(out):
            split = Split.of(load_data_folder(out), protocol)
        else:
            split = Split.from_data(load_data(recipe.dataset, data_root), protocol, recipe.dataset.split_seed)
    data = split.data
    ks = report_ks(recipe, split)
    memory = check_memory(recipe, split.train)
    with torch.random.fork_rng():  # layers draw their first weights from torch's own generator
        torch.manual_seed(seed)
        model = build_model(recipe, split.train, seed)
    _check_processes(recipe, model)
    evaluators = {part: split.evaluator(part, ks, distributed=True) for part in ('test', 'validation')
                  if part == 'test' or split.validation is not None}
    watchers: List[pl.Callback] = [FalseNegativesWatcher(evaluators[split.selected_on].held_out),
                                   FailureSignatures(recipe.loss.temperature)]
    if recipe.training.thermo_users:
        watchers.append(ThermodynamicsWatcher(split.train, recipe.training.thermo_users, seed))
    module = RecommenderModule(model, evaluators[split.selected_on], split.selected_on, recipe.training.lr,
                               recipe.training.weight_decay, seed, out / LOG, recipe.training.optimizer,
                               recipe.training.max_minutes, recipe.training.lr_decay, recipe.training.beta2,
                               recipe.training.average)
    batches = InteractionDataModule(split.train, model.pairwise, recipe.training.batch_size, seed,
                                    recipe.training.num_parts, rank(), world_size())
    with _only_writer(out) if rank() == 0 else nullcontext():
        if rank() == 0:
            if not resume and any(path.name != LOCK for path in out.iterdir()):
                raise RunError(f'{out} was taken by another run in this moment: name another folder with --out')
            write_text(out / CONFIG, yaml.safe_dump(settings.to_dict(), sort_keys=False))
            if not has_data(out):
                save_data(data, out)
            print(memory, flush=True)
        barrier()
        stopped = _train(module, batches, recipe, out, progress, watchers) if model.trains else 'closed form'
        return _finish(settings, split, model, module, evaluators, stopped, started, out)


def _check_processes(recipe: Recipe, model: InteractionModel) -> None:
    """Raise ``ValueError`` for what several processes cannot share."""
    if world_size() == 1:
        return
    if not launched():
        raise ValueError('several processes must be started by torchrun: they would not share what they learn')
    if not model.trains:
        raise ValueError(f"'model.name' {recipe.model.name} is solved in closed form, by one process: run it without "
                         f"torchrun")
    if recipe.training.optimizer == 'row-lazy-adam':
        raise ValueError("'training.optimizer' row-lazy-adam needs sparse gradients, which torch's DDP does not take "
                         "from these tables: set it to adam, or run without torchrun")
    if recipe.diffusion.timesteps == 'loss-history':
        raise ValueError("'diffusion.timesteps' loss-history remembers losses that processes do not share: set it to "
                         "uniform, or run without torchrun")


def _finish(settings: Settings, split: Split, model: InteractionModel, module: RecommenderModule,
            evaluators: Dict[str, RankingEvaluator], stopped: str, started: float, out: Path) -> Run:
    """Take the best epoch's weights, test them, and write what makes the run a finished one, metrics last."""
    recipe, data = settings.recipe, split.data
    epoch = None
    if model.trains:
        best = _load_checkpoint(out / BEST)
        epoch = best['epoch']
        module.take_weights(best)
    model.eval()
    trained = time.perf_counter()
    scorer = model.scorer()
    solved = time.perf_counter()
    test = evaluators['test'](scorer)
    tested = time.perf_counter()
    result = {
        'model': recipe.model.name,
        'dataset': data.name,
        'checksum': data.checksum,
        'protocol': settings.protocol,
        'selected_on': split.selected_on,
        'selection_metric': SELECTION_METRIC,
        'split_seed': recipe.dataset.split_seed,
        'split_checksum': split_checksum(data),
        'seed': settings.seed,
        'epoch': epoch,
        'epochs': len(module.history),
        'stopped': stopped,
        'diagnoses': [diagnosis.to_dict() for diagnosis in
                      diagnose_all(module.history, module.monitor, recipe.loss.temperature)],
        'test': test.mean,
        'validation': evaluators['validation'](scorer).mean if 'validation' in evaluators else None,
        'dropped': dict(data.dropped),
        'users': split.train.num_users,
        'items': split.train.num_items,
        'pairs': {'train': split.train.num_interactions, 'test': split.test.num_interactions,
                  'validation': split.validation.num_interactions if split.validation is not None else 0},
        'wall_s': round(time.perf_counter() - started + module.earlier_seconds, 2),
        'train_s': round(sum(row['seconds'] for row in module.history) if model.trains else solved - trained, 2),
        'test_s': round(tested - solved, 2),
        'peak_rss_mb': round(peak_rss_mb(), 1),
        'device': f'{module.device_type}, {platform.machine()}, {torch.get_num_threads()} threads'
                  + (f', {world_size()} processes' if world_size() > 1 else ''),
        'versions': versions(),
    }
    if rank() == 0:
        save_weights(model.state_dict(), out / WEIGHTS)
        result['files'] = {name: file_sha256(out / name) for name in _HASHED}
        save_weights({'users': test.users, **test.per_user}, out / PER_USER)
        if epoch is not None:
            save_figure(training_figure(module.history, epoch, split.selected_on, recipe.loss.temperature), out / PLOT)
        write_json(out / METRICS, result)
    barrier()  # nobody goes on before the run can be read
    return Run(out, recipe, split, model, result)


def report_ks(recipe: Recipe, split: Split) -> List[int]:
    """Return the list lengths of a run's reports: the recipe's that fit the catalogue, and 20 to select on.

    Raises:
        ValueError: there are fewer than 20 items, so that the selection metric makes no sense.
    """
    num_items = split.train.num_items
    if num_items < SELECTION_K:
        raise ValueError(f"'{split.data.name}' has {num_items} items; the best epoch is selected by "
                         f"{SELECTION_METRIC}, which needs at least {SELECTION_K}")
    ks = recipe.training.ks
    if ks is None:
        ks = [k for k in DEFAULT_KS if k <= num_items]
    elif max(ks, default=0) > num_items:
        raise ValueError(f"'training.ks' holds {max(ks)}, but '{split.data.name}' has {num_items} items")
    return sorted({SELECTION_K, *ks})


class _Best(ModelCheckpoint):
    """Keeps the best epoch's weights, also of a run folder that was moved between two sessions.

    Lightning forgets the best score where the folder's name has changed, and would then take the next epoch's weights
    for the best.
    """

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, 'dirpath': self.dirpath})


def _train(module: RecommenderModule, batches: InteractionDataModule, recipe: Recipe, out: Path, progress: bool,
           watchers: Sequence[pl.Callback]) -> str:
    """Train, going on from the last checkpoint if there is one, and say what ended it."""
    early = EarlyStopping(module.monitor, patience=recipe.training.patience, mode='max', check_finite=True,
                          check_on_train_epoch_end=True)
    best, last = out / BEST, out / LAST
    callbacks: List[pl.Callback] = [
        *watchers, early,
        _Best(best.parent, best.stem, monitor=module.monitor, mode='max', save_weights_only=True,
              save_on_train_epoch_end=True, enable_version_counter=False),
        ModelCheckpoint(last.parent, last.stem, save_on_train_epoch_end=True, enable_version_counter=False),
    ]
    if progress:
        callbacks.append(TQDMProgressBar())
    if last.is_file():
        checkpoint = _load_checkpoint(last)
        module.restore_history(checkpoint)
        if _patience_ran_out(checkpoint):
            return 'patience'
        if module.out_of_time:
            return 'max_minutes'
        del checkpoint  # weights and moments: as much again as what is trained
    options: Dict[str, Any] = {'devices': 1, 'plugins': [AtomicCheckpoints()]}
    if launched():
        nodes, devices = nodes_and_devices()
        options = {'num_nodes': nodes, 'devices': devices, 'plugins': [AtomicCheckpoints(), TorchElasticEnvironment()],
                   'strategy': DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True)}
    with _quiet_lightning():
        trainer = pl.Trainer(
            accelerator='auto', max_epochs=recipe.training.max_epochs, callbacks=callbacks, logger=False,
            enable_progress_bar=progress, enable_model_summary=False, default_root_dir=out, log_every_n_steps=1,
            deterministic='warn', accumulate_grad_batches=batches.parts.own, use_distributed_sampler=False, **options)
        go_on = f"go on with 'tvdiff fit --resume --out {out}'"
        try:
            trainer.fit(module, batches, ckpt_path=last if last.is_file() else None, weights_only=True)
        except (KeyboardInterrupt, SystemExit) as error:  # Lightning turns Ctrl-C into an exit
            raise TrainingInterrupted(f'interrupted: {go_on}') from error
        if trainer.interrupted or trainer.received_sigterm:
            raise TrainingInterrupted(f'terminated: {go_on}')
    if early.wait_count >= early.patience:
        return 'patience'
    return 'max_minutes' if module.out_of_time else 'max_epochs'


def _load_checkpoint(path: Path) -> Dict[str, Any]:
    try:
        return torch.load(path, weights_only=True, map_location='cpu')
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise RunError(f'{path} cannot be read ({error}): train into another folder') from error


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Make a folder and hold it for this process alone."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, 'w', encoding='utf-8') as file:
        if not lock(file, wait=False):
            raise RunError(f'another process is training into {folder}: wait for it, or name another folder')
        yield


def _patience_ran_out(checkpoint: Dict[str, Any]) -> bool:
    return any(name.startswith('EarlyStopping') and state['wait_count'] >= state['patience']
               for name, state in checkpoint['callbacks'].items())


def _check_resume(out: Path, settings: Settings) -> Optional[Run]:
    """Check that ``out`` holds a run of these settings; return it if there is nothing left to train."""
    if not (out / CONFIG).is_file():
        raise RunError(f"{out} is not a run folder (it has no {CONFIG}): there is nothing to resume")
    old, new = _flat(read_settings(out).to_dict()), _flat(settings.to_dict())
    for key in new:
        if new[key] != old.get(key) and key not in GROW:
            raise RunError(f"{out} was begun with {key}={old.get(key)}, not {new[key]}: leave that setting out, or "
                           f"train into another folder")
    if not (out / METRICS).is_file():
        return None
    finished = Run.load(out)
    stopped, training = finished.metrics['stopped'], settings.recipe.training
    more_epochs = finished.metrics['epochs'] < training.max_epochs
    more_minutes = training.max_minutes is None or finished.metrics['train_s'] < 60 * training.max_minutes
    return None if stopped in ('max_epochs', 'max_minutes') and more_epochs and more_minutes else finished


def _flat(values: Dict[str, Any], prefix: str = '') -> Dict[str, Any]:
    out: Dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            out.update(_flat(value, f'{prefix}{key}.'))
        else:
            out[prefix + key] = value
    return out


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's advice on workers and hardware out of the output; its errors stay."""
    loggers = [logging.getLogger(name) for name in ('pytorch_lightning', 'lightning.pytorch')]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', module='pytorch_lightning')
            warnings.filterwarnings('ignore', module='lightning_fabric')
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def peak_rss_mb() -> float:
    """Return the process's largest resident set so far, in MB (10^6 bytes)."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil  # torch-geometric needs it anyway

        return psutil.Process().memory_info().peak_wset / 1e6
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def versions() -> Dict[str, str]:
    """Return the versions that a result depends on."""
    packages = ('torch', 'torch-geometric', 'pytorch-lightning', 'numpy')
    return {'tvdiff-pyg': __version__, 'python': platform.python_version(),
            **{name: version(name) for name in packages}}
