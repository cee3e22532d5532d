"""How much memory a training needs, and whether there is so much, before anything of that size is made."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Iterator, Tuple

import psutil
import torch

from tvdiff_pyg.distributed import launched, nodes_and_devices
from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn.loss import ENTROPY_TERMS
from tvdiff_pyg.nn.models.gf_cf import DENSE
from tvdiff_pyg.nn.models.tvdiff import NUM_PROBES
from tvdiff_pyg.retrieval import BLOCK_SIZE
from tvdiff_pyg.training.recipe import MODELS, Recipe

PROGRAM = 0.5e9  # Python, torch and Lightning
WITHIN = 1.25  # how far the estimate may be off
PRODUCT = 56  # bytes that torch's sparse product takes an entry of what it makes
WEIGHT = 16  # bytes a weight: itself, its gradient, two moments
GRAPH = 28  # bytes an edge of a graph: three int64 and a float32
PAIR = 16 + GRAPH  # bytes an interaction: two int64, and its edge
CGROUP = (Path('/sys/fs/cgroup/memory.max'), Path('/sys/fs/cgroup/memory/memory.limit_in_bytes'))


def factored_bytes(users: float, items: float, interactions: float, width: float, batch: float, pool: float,
                   probes: float = NUM_PROBES) -> float:
    """Return the memory of TV-Diff's factored training with the exact energy and Adam, in bytes of float32.

    :data:`WEIGHT` a weight, ten bytes an entry of H for what a step makes besides, :data:`PAIR` an interaction, and the
    batch's own arrays. Held against measurements by ``benchmarks.capacity``.
    """
    scores = batch if 3 * batch < 2 * width else 0  # rows of all items, instead of a Gram matrix
    return (WEIGHT * (users + items) * width + 10 * items * width + PAIR * interactions + 4 * (probes + scores) * items
            + batch * (32 * width + 4 * pool))


def training_bytes(recipe: Recipe, interactions: InteractionMatrix) -> float:
    """Return about how many bytes the process of ``tvdiff fit`` needs at its peak, within a quarter or so.

    Args:
        recipe: the settings.
        interactions: the training interactions.
    """
    users, items, pairs = interactions.num_users, interactions.num_items, interactions.num_interactions
    model, training = recipe.model, recipe.training
    ranking = 16 * BLOCK_SIZE * items
    base = PROGRAM + 24 * pairs + ranking
    widths = model.hidden_channels if isinstance(model.hidden_channels, list) else [model.hidden_channels or 0]
    by_pairs = model.name in ('lightgcn', 'bpr-mf') or (
        model.name == 'tv-diff' and ENTROPY_TERMS[recipe.loss.entropy].pairwise)
    batch = min(training.batch_size, pairs if by_pairs else users) / training.num_parts
    average = 0 if training.average is None else 4
    if model.name in ('tv-diff', 'diffrec'):
        sampler = recipe.sampler
        pool = 0 if sampler.name != 'ar-gsp' or model.name == 'diffrec' else min(sampler.pool_size or items, items)
        graph = model.name == 'tv-diff' and model.normalization != 'none'
        rows = users if graph else items
        size = factored_bytes(rows, items, pairs, widths[0], batch, pool) + average * (rows + items) * widths[0]
        size += sum(WEIGHT * 2 * wide * narrow for wide, narrow in zip(widths, widths[1:]))
        if model.engine == 'dense':
            size += 22 * batch * items  # five and a half rows of the catalogue an example
        return base + size
    if model.name in ('lightgcn', 'bpr-mf'):
        weight = WEIGHT + average + 8 * (1 + (model.num_layers or 0))
        return base + weight * (users + items) * widths[0] + 2 * GRAPH * pairs
    if model.name == 'ease':
        dual = users < items
        shared = interactions.item_degree if dual else interactions.user_degree
        side = float(min(users, items))
        return base + 8 * side ** 2 + PRODUCT * min(side ** 2, float(shared.double().square().sum()))
    if model.name == 'item-knn':
        return base + 64 * BLOCK_SIZE * items + 48 * items * min(model.num_neighbors or 0, items)
    if model.name == 'gf-cf' and (model.alpha or 0) > 0:
        side, rank = min(users, items), min(widths[0], users, items)
        solving = 130 * rank * side if side > DENSE else 24 * side ** 2  # Lanczos: a basis of 5 rank or more, twice
        return base + solving + 24 * items * rank
    return base + 12 * (users + items) * widths[0]


def memory_limit(trains: bool = True) -> Tuple[float, str]:
    """Return how many bytes there are for a process, and of what: the GPU's, or its share of the machine's.

    Args:
        trains: whether the model trains; one in closed form is solved by the processor.
    """
    if trains and torch.cuda.is_available():
        return float(torch.cuda.mem_get_info()[1]), 'GPU memory'
    limits = [float(psutil.virtual_memory().total)]
    for path in CGROUP:
        try:
            limits.append(float(path.read_text()))
        except (OSError, ValueError):  # not there, or 'max'
            pass
    return min(limits) / (nodes_and_devices()[1] if launched() else 1), 'memory'


def check_memory(recipe: Recipe, interactions: InteractionMatrix) -> str:
    """Return a line on what a training needs and what there is.

    Raises:
        ValueError: it cannot fit, even if the estimate is a quarter too high; the message names a setting that would,
            where there is one.
    """
    needed = training_bytes(recipe, interactions)
    limit, what = memory_limit(MODELS[recipe.model.name].has('training', 'batch_size'))
    if needed > WITHIN * limit:
        advice = next((f'{options} would do with about {_gb(size)}' for options, size in
                       _smaller(recipe, interactions) if size <= limit), 'no smaller setting that was tried fits')
        raise ValueError(f"'{recipe.model.name}' on {interactions.num_users} users x {interactions.num_items} items "
                         f'needs about {_gb(needed)}, but there are {_gb(limit)} of {what}: {advice}')
    return f'memory: about {_gb(needed)} of {_gb(limit)}' + (': it may not do' if needed > limit / WITHIN else '')


def _smaller(recipe: Recipe, interactions: InteractionMatrix) -> Iterator[Tuple[str, float]]:
    """Yield options that need less and less, with what they need: the engine, the parts of a batch, then the width."""
    changed: Dict[str, Any] = {}

    def changes(name: str, value: Any) -> Tuple[str, float]:
        nonlocal recipe
        group, _, setting = name.partition('.')
        recipe = replace(recipe, **{group: replace(getattr(recipe, group), **{setting: value})})
        changed[name] = value
        return ' '.join(f'--{key} {number}' for key, number in changed.items()), training_bytes(recipe, interactions)

    has = MODELS[recipe.model.name].has
    if recipe.model.engine == 'dense' and recipe.diffusion.prediction == 'x0':
        yield changes('model.engine', 'factored')
    before = training_bytes(recipe, interactions)
    if has('training', 'num_parts') and training_bytes(
            replace(recipe, training=replace(recipe.training, num_parts=64)), interactions) < 0.5 * before:
        while recipe.training.num_parts < 64:  # the batch is most of it
            yield changes('training.num_parts', 2 * recipe.training.num_parts)
    while isinstance(recipe.model.hidden_channels, int) and recipe.model.hidden_channels > 1:
        yield changes('model.hidden_channels', recipe.model.hidden_channels // 2)


def _gb(size: float) -> str:
    return f'{size / 1e9:.1f} GB' if size < 1e11 else f'{size / 1e9:,.0f} GB'
