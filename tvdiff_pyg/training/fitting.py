"""Training into a run folder: from a recipe to a finished run."""
from __future__ import annotations

import logging
import os
import pickle
import platform
import time
import warnings
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Union

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.plugins.environments import TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch_geometric.data import HeteroData

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
from tvdiff_pyg.evaluation import RankingEvaluator
from tvdiff_pyg.files import lock, remove_parts, write_json, write_text
from tvdiff_pyg.nn.models.base import InteractionModel
from tvdiff_pyg.split import Split
from tvdiff_pyg.training.building import build_model, check_data, load_data
from tvdiff_pyg.training.callbacks import FailureSignatures, FalseNegativesWatcher, ThermodynamicsWatcher
from tvdiff_pyg.training.data import InteractionDataModule
from tvdiff_pyg.training.environment import peak_rss_mb, versions
from tvdiff_pyg.training.folder import (
    BEST,
    CONFIG,
    HASHED,
    LAST,
    LOG,
    METRICS,
    PER_USER,
    PLOT,
    WEIGHTS,
    RunError,
    Settings,
    read_history,
    read_settings,
)
from tvdiff_pyg.training.memory import check_memory
from tvdiff_pyg.training.module import SELECTION_METRIC, RecommenderModule, TrainingDiverged, TrainingInterrupted
from tvdiff_pyg.training.plots import save_figure, training_figure
from tvdiff_pyg.training.recipe import Recipe, flatten
from tvdiff_pyg.training.run import Run, report_ks
from tvdiff_pyg.training.storage import (
    TENSORS,
    TEXT,
    AtomicCheckpoints,
    has_data,
    load_data_folder,
    save_data,
    save_weights,
    split_checksum,
)

LOCK = '.lock'
GROW = ('training.max_epochs', 'training.max_minutes', 'data_root')  # may change when a run is resumed


def fit(
    recipe: Recipe,
    out: Union[str, Path],
    data_root: Union[str, Path, None] = None,
    protocol: str = 'holdout',
    seed: int = 0,
    resume: bool = False,
    progress: bool = True,
    data: Optional[HeteroData] = None,
) -> Run:
    """Train by a recipe into a run folder, select the best epoch, test it, and return the finished run.

    The folder gets ``config.yaml``, the data's ids and edges, ``checkpoints/``, ``log.csv``, and at the end
    ``weights.safetensors``, ``training.png`` and, last of all, ``metrics.json``.

    Where ``torchrun`` started several processes, each calls this, and they share out the parts of every batch
    (``training.num_parts``) and the users of every evaluation; the first one writes, and ``out`` must be a folder that
    all can read. The result does not depend on how many there are.

    A training that diverges is finished from the best epoch before that, where there is one, and raises nevertheless:
    ``metrics.json`` has ``stopped: diverged`` and the diagnosis, the run can be read by :meth:`Run.load`, and resuming
    returns it. Several processes do not finish it, as a loss may be infinite in one of them alone, which would wait
    for the others: one process that resumes the run does.

    Args:
        recipe: the settings.
        out: the run folder; must not hold anything yet, unless resuming.
        data_root: the folder that holds ``NAME/raw/``.
        protocol: ``holdout`` selects the epoch on validation; ``paper`` on test, as the published figures did.
        seed: seed of weights, order, noise, dropout and negatives.
        resume: go on with the run in ``out``; its settings must be the same, but for ``training.max_epochs`` and
            ``max_minutes``.
        progress: show a progress bar instead of a line an epoch.
        data: a data set that is loaded already, ``InteractionFrame(frame)[0]`` say, to train on instead of
            ``recipe.dataset``, whose ``name`` must then be ``None`` or that of ``data``; its ``split_seed`` still draws
            a validation part where there is none. The folder keeps it: resuming does without.

    Raises:
        RunError: ``out`` is in use, or does not fit what is to be resumed, ``data`` included.
        DataError: the data set cannot be read.
        TrainingDiverged: the loss or a weight is no longer finite; the message says whether ``out`` holds a finished
            run of the best epoch before.
        TrainingInterrupted: training was stopped from outside, or another of its processes has ended.
        ValueError: a setting out of range, or ``recipe.model.name`` changed after the recipe was made.
    """
    out = Path(out)
    try:
        with process_group():
            return _fit(recipe, out, data_root, protocol, seed, resume, progress, data)
    except RuntimeError as error:
        if not lost_process(error):
            raise
        go_on = (': once its reason is mended, give the same command again with --resume' if (out / LAST).is_file()
                 else ': its own words say why')
        raise TrainingInterrupted(f'another process of this run has ended{go_on} ({error})') from error


def _fit(recipe: Recipe, out: Path, data_root: Union[str, Path, None], protocol: str, seed: int, resume: bool,
         progress: bool, data: Optional[HeteroData]) -> Run:
    started = time.perf_counter()
    recipe = recipe.checked()
    settings = Settings(recipe, protocol, seed, None if data_root is None else str(data_root))
    settings.check()
    given = None
    if data is not None:
        check_data(data, recipe.dataset)
        given = Split.from_data(data, protocol, recipe.dataset.split_seed)
    if resume:
        finished = _check_resume(out, settings, given)
        if finished is not None:
            return finished
    elif rank() == 0 and out.exists() and (not out.is_dir() or any(out.iterdir())):
        go_on = ', or go on with that run by --resume' if (out / CONFIG).is_file() else ''
        raise RunError(f'{out} exists already: name another folder with --out{go_on}')

    with first_process_first():
        if resume and has_data(out):
            split = Split.of(load_data_folder(out), protocol)
        else:
            split = given or Split.from_data(load_data(recipe.dataset, data_root), protocol, recipe.dataset.split_seed)
    ks = report_ks(recipe, split)
    memory = check_memory(recipe, split.train)
    with torch.random.fork_rng(devices=[]):  # layers draw their first weights from torch's own generator
        torch.default_generator.manual_seed(seed)
        model = build_model(recipe, split.train, seed)
    _check_processes(recipe, model)
    evaluators = {part: split.evaluator(part, ks, distributed=True) for part in ('test', 'validation')
                  if part == 'test' or split.validation is not None}
    watchers: List[pl.Callback] = [FalseNegativesWatcher(evaluators[split.selected_on].held_out),
                                   FailureSignatures(recipe.loss.temperature, recipe.settings())]
    if recipe.training.thermo_users:
        watchers.append(ThermodynamicsWatcher(split.train, recipe.training.thermo_users, seed))
    module = RecommenderModule(model, evaluators[split.selected_on], split.selected_on, recipe.training.lr,
                               recipe.training.weight_decay, seed, out / LOG, recipe.training.optimizer,
                               recipe.training.max_minutes, recipe.training.lr_decay, recipe.training.beta2,
                               recipe.training.average, recipe.settings())
    batches = InteractionDataModule(split.train, model.pairwise, recipe.training.batch_size, seed,
                                    recipe.training.num_parts, rank(), world_size())
    with _only_writer(out) if rank() == 0 else nullcontext(), _deterministic() if model.trains else nullcontext():
        if rank() == 0:
            if resume:
                for name in (CONFIG, TENSORS, TEXT, BEST, LAST, LOG, WEIGHTS, PER_USER, PLOT, METRICS):
                    remove_parts(out / name)
            elif any(path.name != LOCK for path in out.iterdir()):
                raise RunError(f'{out} was taken by another run in this moment: name another folder with --out')
            write_text(out / CONFIG, yaml.safe_dump(settings.to_dict(), sort_keys=False))
            if not has_data(out):
                save_data(split.data, out)
            print(memory, flush=True)
        barrier()
        diverged: Optional[TrainingDiverged] = None
        stopped = 'closed form'
        if model.trains:
            try:
                stopped = _train(module, batches, recipe, out, progress, watchers)
            except TrainingDiverged as error:
                if not module.history:
                    raise TrainingDiverged(f'{error}; there is no epoch before it to keep', error.diagnosis) from error
                if world_size() > 1:
                    raise TrainingDiverged(f'{error}; resumed by one process, without torchrun, the run is finished '
                                           f'from the best epoch before it', error.diagnosis) from error
                diverged, stopped = error, 'diverged'
        run = _finish(settings, split, model, module, evaluators, stopped, diverged, started, out)
        if diverged is not None:
            raise TrainingDiverged(f"{diverged}; the best epoch before it, {run.metrics['epoch']}, is kept in the run",
                                   diverged.diagnosis) from diverged
        return run


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
            evaluators: Dict[str, RankingEvaluator], stopped: str, diverged: Optional[TrainingDiverged],
            started: float, out: Path) -> Run:
    """Take the best epoch's weights, test them, and write what makes the run a finished one, metrics last."""
    recipe, data = settings.recipe, split.data
    diagnoses = diagnose_all(module.history, module.monitor, recipe.loss.temperature, module.settings)
    if diverged is not None:  # which says more than that the loss had begun to rise
        diagnoses = [diverged.diagnosis, *(found for found in diagnoses if found.name != diverged.diagnosis.name)]
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
        'diagnoses': [diagnosis.to_dict() for diagnosis in diagnoses],
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
        (out / METRICS).unlink(missing_ok=True)  # of a run that went on: its checksums are of the weights before
        save_weights(model.state_dict(), out / WEIGHTS)
        result['files'] = {name: file_sha256(out / name) for name in HASHED}
        save_weights({'users': test.users, **test.per_user}, out / PER_USER)
        if epoch is not None:
            save_figure(training_figure(module.history, epoch, split.selected_on, recipe), out / PLOT)
        write_json(out / METRICS, result)
    barrier()  # nobody goes on before the run can be read
    return Run(out, recipe, split, model, result)


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
            accumulate_grad_batches=batches.parts.own, use_distributed_sampler=False, **options)
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


def _check_resume(out: Path, settings: Settings, given: Optional[Split]) -> Optional[Run]:
    """Check that ``out`` holds a run of these settings and data; return it if there is nothing left to train."""
    if not (out / CONFIG).is_file():
        raise RunError(f"{out} is not a run folder (it has no {CONFIG}): there is nothing to resume")
    old, new = flatten(read_settings(out).to_dict()), flatten(settings.to_dict())
    for key in new:
        if new[key] != old.get(key) and key not in GROW:
            raise RunError(f"{out} was begun with {key}={old.get(key)}, not {new[key]}: leave that setting out, or "
                           f"train into another folder")
    if given is not None and has_data(out):
        kept = load_data_folder(out)
        if (kept.checksum, split_checksum(kept)) != (given.data.checksum, split_checksum(given.data)):
            raise RunError(f"{out} was begun with other data than 'data', or another split of them: omit it, or train "
                           f"into another folder")
    if not (out / METRICS).is_file():
        trained = len(read_history(out))
        if settings.recipe.training.max_epochs < trained:
            raise RunError(f'{out} has trained {trained} epochs already: training.max_epochs must be at least that to '
                           f'go on, got {settings.recipe.training.max_epochs}')
        return None
    finished = Run.load(out)
    stopped, training = finished.metrics['stopped'], settings.recipe.training
    more_epochs = finished.metrics['epochs'] < training.max_epochs
    more_minutes = training.max_minutes is None or finished.metrics['train_s'] < 60 * training.max_minutes
    return None if stopped in ('max_epochs', 'max_minutes') and more_epochs and more_minutes else finished


@contextmanager
def _deterministic() -> Iterator[None]:
    """Prefer deterministic kernels while a training lasts.

    Not Lightning's own option: that leaves the process so, and lets torch fill every fresh tensor with NaN, which costs
    a write of it each time.
    """
    filling = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = filling  # type: ignore[attr-defined]


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
