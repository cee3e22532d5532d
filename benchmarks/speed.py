"""Every fast path against the dense oracle, in one run.

``python -m benchmarks.speed --dataset lastfm --data-root DIR [--hidden-channels 1000] [--json FILE]``

* ``reverse``: ranking a block of users, the dense reverse process against the latent one (SPEC 7a), and how far the
  scores differ, in float32 and, over a small block, in float64;
* ``train_step_exact``: forward, backward and Adam of the recipe's batch, dense against factored (SPEC 7b to 7f).

Beside the seconds stand the flops of the matrix products that the path cannot do without, at the rate that a plain
matrix product reaches in the same run: what is above that is sparse work, memory traffic and random numbers.
"""
from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import time
from pathlib import Path
from typing import Any, Callable, Dict, List

os.environ.setdefault('THP_MEM_ALLOC_ENABLE', '1')  # as the command line does; before torch allocates

import torch  # noqa: E402

from tvdiff_pyg.interaction_matrix import InteractionMatrix  # noqa: E402
from tvdiff_pyg.nn import TVDiff  # noqa: E402
from tvdiff_pyg.retrieval import BLOCK_SIZE  # noqa: E402
from tvdiff_pyg.training import InteractionDataModule, Recipe, Split, build_model, load_data, load_recipe  # noqa: E402
from tvdiff_pyg.training.run import peak_rss_mb, versions  # noqa: E402


def seconds(function: Callable[[], Any], repeat: int) -> float:
    """Return the median time of ``repeat`` calls, after one that does not count."""
    function()
    times = []
    for _ in range(repeat):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return sorted(times)[len(times) // 2]


def gemm_rate(size: int = 4096) -> float:
    """Return the flops a second of a plain float32 matrix product."""
    a = torch.randn(size, size)
    return 2 * size ** 3 / seconds(lambda: a @ a, 3)


def models(recipe: Recipe, train: InteractionMatrix) -> Dict[str, TVDiff]:
    """Return the recipe's model on both engines, with the same weights; the dense one ranks the whole catalogue."""
    out: Dict[str, TVDiff] = {}
    for engine in ('dense', 'factored'):
        sampler = recipe.sampler if engine == 'factored' else dataclasses.replace(recipe.sampler, pool_size=None)
        changed = dataclasses.replace(recipe, sampler=sampler, model=dataclasses.replace(recipe.model, engine=engine))
        torch.manual_seed(0)
        out[engine] = build_model(changed, train)
    return out


def reverse(recipe: Recipe, train: InteractionMatrix, repeat: int) -> Dict[str, float]:
    """Time and compare ranking on both engines."""
    users = torch.arange(BLOCK_SIZE) * (train.num_users // BLOCK_SIZE)
    both = models(recipe, train)
    scorers = {engine: model.scorer() for engine, model in both.items()}
    row: Dict[str, float] = {}
    for engine, scorer in scorers.items():
        row[f'{engine}_s'] = seconds(lambda: scorer(users), repeat)
    dense, factored = (scorers[engine](users) for engine in ('dense', 'factored'))
    row['difference_float32'] = float((dense - factored).abs().max() / dense.abs().max())
    few = users[:8]
    dense, factored = (model.double().scorer()(few) for model in both.values())
    row['difference_float64'] = float((dense - factored).abs().max() / dense.abs().max())
    n, d, t = train.num_items, recipe.model.hidden_channels, recipe.diffusion.num_steps
    assert isinstance(d, int)
    row['dense_gemm_flops'] = 4.0 * t * n * d * BLOCK_SIZE
    row['factored_gemm_flops'] = 2.0 * (t * d * d + n * d) * BLOCK_SIZE
    return row


def train_step(recipe: Recipe, train: InteractionMatrix, repeat: int) -> Dict[str, float]:
    """Time a whole training step on both engines."""
    pairwise = recipe.loss.entropy == 'bpr'
    batches = iter(InteractionDataModule(train, pairwise, recipe.training.batch_size).train_dataloader())
    batch = next(batches)
    row: Dict[str, float] = {}
    for engine, model in models(recipe, train).items():
        optimizer = torch.optim.Adam(model.parameters(), recipe.training.lr, fused=True)
        generator = torch.Generator().manual_seed(0)
        model.train()

        def step() -> None:
            optimizer.zero_grad()
            model.training_loss(batch, generator).loss.backward()
            optimizer.step()

        row[f'{engine}_s'] = seconds(step, repeat if engine == 'factored' else max(1, repeat // 3))
    b, n, d = batch.users.numel(), train.num_items, recipe.model.hidden_channels
    assert isinstance(d, int)
    pool = recipe.sampler.pool_size or n
    row['dense_gemm_flops'] = 10.0 * b * n * d  # z, scores and their three gradients but the input's
    row['factored_gemm_flops'] = 4.0 * n * d * d + 6.0 * b * d * d + 2.0 * b * pool * d + 4.0 * 64 * n * d
    return row


def main(argv: Any = None) -> List[Dict[str, Any]]:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--dataset', default='movielens-small', help='name of a recipe')
    parser.add_argument('--data-root', default=None)
    parser.add_argument('--hidden-channels', type=int, nargs='+', default=[1000, 256])
    parser.add_argument('--num-steps', type=int, default=50, help='steps of the reverse process')
    parser.add_argument('--repeat', type=int, default=7)
    parser.add_argument('--json', default=None)
    options = parser.parse_args(argv)

    recipe = load_recipe(options.dataset)
    data = load_data(recipe.dataset, options.data_root)
    train = Split.from_data(data, 'paper').train
    rate = gemm_rate()
    rows = []
    print(f'{data.name}: {train}, {torch.get_num_threads()} threads, plain matrix product {rate / 1e9:.0f} GFLOP/s')
    for width in options.hidden_channels:
        at_width = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, hidden_channels=width))
        at_steps = dataclasses.replace(
            at_width, diffusion=dataclasses.replace(recipe.diffusion, num_steps=options.num_steps))
        for path, measure, setting in (('reverse', reverse, at_steps), ('train_step_exact', train_step, at_width)):
            row: Dict[str, Any] = {'path': path, 'hidden_channels': width, **measure(setting, train, options.repeat)}
            row['ratio'] = row['dense_s'] / row['factored_s']
            row['factored_gemm_floor_s'] = row['factored_gemm_flops'] / rate
            rows.append(row)
            print(f"{path:<18} d={width:<5} dense {row['dense_s']:8.3f} s   factored {row['factored_s']:8.4f} s   "
                  f"{row['ratio']:6.1f} x   floor of its products {row['factored_gemm_floor_s']:.4f} s"
                  + (f"   difference {row['difference_float32']:.1e} / {row['difference_float64']:.1e}"
                     if path == 'reverse' else ''), flush=True)
    if options.json:
        result = {'dataset': data.name, 'checksum': data.checksum, 'batch_size': recipe.training.batch_size,
                  'reverse_steps': options.num_steps, 'block_size': BLOCK_SIZE, 'rows': rows,
                  'gemm_flops_per_s': rate, 'peak_rss_mb': peak_rss_mb(), 'threads': torch.get_num_threads(),
                  'machine': platform.machine(), 'versions': versions()}
        Path(options.json).write_text(json.dumps(result, indent=2) + '\n', encoding='utf-8')
    return rows


if __name__ == '__main__':
    main()
