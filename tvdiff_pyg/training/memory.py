"""How much memory a training needs, and whether there is so much, before anything of that size is made."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Iterator, Tuple

import psutil
import torch

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.retrieval import BLOCK_SIZE
from tvdiff_pyg.training.recipe import Recipe

PROGRAM = 0.5e9  # Python, torch and Lightning
WITHIN = 1.25  # how far the estimate may be off
NUM_PROBES = 64  # TVDiff's default
CGROUP = (Path('/sys/fs/cgroup/memory.max'), Path('/sys/fs/cgroup/memory/memory.limit_in_bytes'))


def factored_bytes(users: float, items: float, interactions: float, width: float, batch: float, pool: float,
                   probes: float = NUM_PROBES) -> float:
    """Return the memory of TV-Diff's factored training with the exact energy and Adam, in bytes of float32.

    16 bytes a weight (itself, its gradient, two moments), ten an entry of H for what a step makes besides, 68 an
    interaction (three int64; five and a float32 an edge of the graph), and the batch's own arrays. Held against
    measurements by ``benchmarks.capacity``.
    """
    return (16 * (users + items) * width + 10 * items * width + 68 * interactions + 4 * probes * items
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
    batch = min(training.batch_size, max(pairs, users)) / training.num_parts
    if model.name in ('tv-diff', 'diffrec'):
        sampler = recipe.sampler
        pool = 0 if sampler.name != 'ar-gsp' or model.name == 'diffrec' else min(sampler.pool_size or items, items)
        graph = model.name == 'tv-diff' and model.normalization != 'none'
        size = factored_bytes(users if graph else items, items, pairs, widths[0], batch, pool)
        size += sum(16 * 2 * wide * narrow for wide, narrow in zip(widths, widths[1:]))
        if model.engine == 'dense':
            size += 22 * batch * items  # five and a half rows of the catalogue an example
        return base + size
    if model.name in ('lightgcn', 'bpr-mf'):
        return base + (16 + 8 * (1 + (model.num_layers or 0))) * (users + items) * widths[0] + 2 * 44 * pairs
    if model.name == 'ease':
        dual = users < items
        shared = interactions.item_degree if dual else interactions.user_degree
        side = float(min(users, items))
        return base + 8 * side ** 2 + 56 * min(side ** 2, float(shared.double().square().sum()))
    return base + 12 * (users + items) * widths[0]


def memory_limit() -> Tuple[float, str]:
    """Return how many bytes there are to train in, and of what: the GPU's, the container's or the machine's."""
    if torch.cuda.is_available():
        return float(torch.cuda.mem_get_info()[1]), 'GPU memory'
    limits = [float(psutil.virtual_memory().total)]
    for path in CGROUP:
        try:
            limits.append(float(path.read_text()))
        except (OSError, ValueError):  # not there, or 'max'
            pass
    return min(limits), 'memory'


def check_memory(recipe: Recipe, interactions: InteractionMatrix) -> str:
    """Return a line on what a training needs and what there is.

    Raises:
        ValueError: it cannot fit, even if the estimate is a quarter too high; the message names a setting that would,
            where there is one.
    """
    needed, (limit, what) = training_bytes(recipe, interactions), memory_limit()
    if needed > WITHIN * limit:
        advice = next((f'{option} would do with about {_gb(size)}' for option, size in
                       _smaller(recipe, interactions) if size <= limit), 'none of its settings makes it fit')
        raise ValueError(f"'{recipe.model.name}' on {interactions.num_users} users x {interactions.num_items} items "
                         f'needs about {_gb(needed)}, but there are {_gb(limit)} of {what}: {advice}')
    return f'memory: about {_gb(needed)} of {_gb(limit)}' + (': it may not do' if needed > limit / WITHIN else '')


def _smaller(recipe: Recipe, interactions: InteractionMatrix) -> Iterator[Tuple[str, float]]:
    """Yield settings that need less, as options, with what they need."""
    model, training = recipe.model, recipe.training
    if model.engine == 'dense' and recipe.diffusion.prediction == 'x0':
        recipe = replace(recipe, model=replace(model, engine='factored'))
        yield '--model.engine factored', training_bytes(recipe, interactions)
    steps: Dict[str, Any] = {}
    if isinstance(model.hidden_channels, int):
        steps['model.hidden_channels'] = model.hidden_channels
    if model.name in ('tv-diff', 'diffrec', 'lightgcn', 'bpr-mf'):
        steps['training.batch_size'] = training.batch_size
    for name, value in steps.items():
        group, _, setting = name.partition('.')
        while value > 32:
            value //= 2
            part = replace(getattr(recipe, group), **{setting: value})
            yield f'--{name} {value}', training_bytes(replace(recipe, **{group: part}), interactions)


def _gb(size: float) -> str:
    return f'{size / 1e9:.1f} GB' if size < 1e11 else f'{size / 1e9:,.0f} GB'
