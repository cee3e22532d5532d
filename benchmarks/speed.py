"""Every fast path against the dense oracle, in one run.

``python -m benchmarks.speed --dataset lastfm --data-root DIR [--hidden-channels 1000 256] [--json FILE]``

* ``reverse``: ranking a block of users, and its share of what a scorer computes once (SPEC 7a); how far scores differ;
* ``train_step_exact``: forward, backward and Adam of the recipe's batch (SPEC 7b, c, e, f), with the same negative
  sampler on both sides, the recipe's AR-GSP or the uniform one;
* ``train_step_stochastic``: the same with the energy of 2,048 random items, with its variance reduced (SPEC 7d);
* ``ar_gsp``: a batch's negatives alone, scores included: from a pool against from the catalogue (SPEC 7f);
* ``fit_epoch``: an epoch's steps and one ranking of all test users, once; on the dense side a few stand for all;
* ``allocator``: the factored step with torch's huge pages against without.

Each side is measured in a process of its own, so that its peak memory is its own. Beside the seconds stands the share
that the path's own matrix products would take at the rate of a plain one, measured in the same run: what is above that
is sparse work, memory traffic and random numbers.
"""
from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import os
import platform
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

os.environ.setdefault('THP_MEM_ALLOC_ENABLE', '1')  # as the command line does; before torch allocates

import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from tvdiff_pyg.evaluation import RankingEvaluator  # noqa: E402
from tvdiff_pyg.files import write_json  # noqa: E402
from tvdiff_pyg.interaction_matrix import InteractionMatrix  # noqa: E402
from tvdiff_pyg.nn import TVDiff  # noqa: E402
from tvdiff_pyg.retrieval import BLOCK_SIZE  # noqa: E402
from tvdiff_pyg.sampling import ARGumbelSampler, dense_scores  # noqa: E402
from tvdiff_pyg.training import InteractionDataModule, Recipe, Split, build_model, load_data, load_recipe  # noqa: E402
from tvdiff_pyg.training.environment import peak_rss_mb, versions  # noqa: E402
from tvdiff_pyg.training.run import report_ks  # noqa: E402
from tvdiff_pyg.typing import Batch  # noqa: E402
from tvdiff_pyg.utils import evaluation_mode  # noqa: E402

POOL_SIZE = 2048  # of AR-GSP, where the recipe draws without it
ENERGY_ITEMS = 2048  # of the stochastic energy, with a quarter of the directions taken exactly
TIMED_STEPS, TIMED_USERS = 3, 4 * BLOCK_SIZE  # of the dense epoch
HUGE_PAGES = {'huge-pages': '1', 'small-pages': '0'}
COMPARISONS = {  # what is measured, and the two sides: dense, factored, and variants of factored
    'reverse': ('rank_block', 'factored', 'dense'),
    'train_step_exact': ('train_step', 'factored', 'dense'),
    'train_step_stochastic': ('train_step', 'stochastic', 'dense'),
    'ar_gsp': ('draw_negatives', 'factored', 'dense'),
    'fit_epoch': ('fit_epoch', 'factored', 'dense'),
    'allocator': ('train_step', 'huge-pages', 'small-pages'),
}


def once(function: Callable[[], Any]) -> float:
    """Return the time of a call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def seconds(function: Callable[[], Any], repeat: int) -> float:
    """Return the median time of ``repeat`` calls, after one that does not count."""
    function()
    return sorted(once(function) for _ in range(repeat))[repeat // 2]


def gemm_rate(size: int = 2048) -> float:
    """Return the flops a second of a plain float32 matrix product."""
    a = torch.randn(size, size)
    return 2 * size ** 3 / seconds(lambda: a @ a, 5)


def gemm_flops(function: Callable[[], Any]) -> float:
    """Return the flops of the dense matrix products in a call."""
    in_place = {torch.ops.aten.addmm_: lambda c, a, b, **_: 2 * a[0] * a[1] * b[1]}  # torch knows the other form only
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        function()
    return float(counter.get_total_flops())


def seeded_model(recipe: Recipe, split: Split) -> TVDiff:
    """Return the recipe's model; both engines get the same weights."""
    torch.manual_seed(0)
    model = build_model(recipe, split.train)
    assert isinstance(model, TVDiff)
    return model


def some_users(split: Split) -> Tensor:
    """Return a block of users from all over the data set."""
    return torch.arange(BLOCK_SIZE) * split.train.num_users // BLOCK_SIZE


def training(recipe: Recipe, split: Split) -> Tuple[TVDiff, DataLoader, Callable[[Batch], None]]:
    """Return a model, the batches of an epoch, and what takes a training step."""
    model = seeded_model(recipe, split)
    optimizer = torch.optim.Adam(model.parameters(), recipe.training.lr, fused=True)
    generator = torch.Generator().manual_seed(0)

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        model.training_loss(batch, generator).loss.backward()
        optimizer.step()

    batches = InteractionDataModule(split.train, model.loss.entropy.pairwise, recipe.training.batch_size)
    return model, batches.train_dataloader(), step


def rank_block(recipe: Recipe, split: Split, repeat: int) -> Dict[str, float]:
    """Time the ranking of a block of users and their share of a scorer's set-up."""
    model, users = seeded_model(recipe, split), some_users(split)
    share = BLOCK_SIZE / model.num_users
    setup, scorer = seconds(model.scorer, repeat), model.scorer()
    return {'s': seconds(lambda: scorer(users), repeat) + share * setup, 'setup_s': setup, 'peak_mb': peak_rss_mb(),
            'gemm_flops': gemm_flops(lambda: scorer(users)) + share * gemm_flops(model.scorer)}


def train_step(recipe: Recipe, split: Split, repeat: int) -> Dict[str, float]:
    """Time a whole training step."""
    _, batches, step = training(recipe, split)
    batch: Batch = next(iter(batches))
    return {'s': seconds(lambda: step(batch), repeat), 'peak_mb': peak_rss_mb(),
            'gemm_flops': gemm_flops(lambda: step(batch))}


def draw_negatives(recipe: Recipe, split: Split, repeat: int) -> Dict[str, float]:
    """Time a batch's negatives, from codes that are there: a pool's scores, or all, as the dense step makes them."""
    model, batches, _ = training(recipe, split)
    batch, generator, num_steps = next(iter(batches)), torch.Generator().manual_seed(0), model.diffusion.num_steps
    sampler, dense = model.sampler, model.engine == 'dense'
    assert isinstance(sampler, ARGumbelSampler)
    if dense:
        sampler.pool_size = None
    degree = split.train.user_degree[batch.users]
    count = degree if batch.items is None else torch.ones_like(degree)
    t = torch.randint(num_steps, degree.shape, generator=generator)
    code = torch.randn(degree.numel(), model.denoiser.widths[-1], generator=generator).tanh()
    with evaluation_mode(model):
        items = model.denoiser.items(model.graph)

    def scores(rows: Tensor, index: Optional[Tensor]) -> Tensor:
        return code[rows] @ (items if index is None else items[index]).t()

    def draw() -> None:
        sampler(split.train, batch.users, count, dense_scores(code @ items.t()) if dense else scores, t, num_steps,
                generator)

    return {'s': seconds(draw, repeat), 'peak_mb': peak_rss_mb(), 'gemm_flops': gemm_flops(draw)}


def fit_epoch(recipe: Recipe, split: Split, repeat: int) -> Dict[str, float]:
    """Time an epoch's steps and one ranking, after two steps and a block that do not count."""
    model, batches, step = training(recipe, split)
    first, *_, last = batches
    test, users = split.test.edge_index, split.test.user_degree.nonzero().view(-1)
    steps, timed_steps, timed_users = len(batches), len(batches), users.numel()
    if model.engine == 'dense':
        timed_steps, timed_users = min(steps, TIMED_STEPS), min(timed_users, TIMED_USERS)
    some = InteractionMatrix(test[:, test[0] <= users[timed_users - 1]], model.num_users, model.num_items)
    evaluator = RankingEvaluator(some, split.seen_when_testing, report_ks(recipe, split))
    scorer = model.scorer()
    flops = (gemm_flops(lambda: step(first)) * (steps - 1) + gemm_flops(lambda: step(last)) + gemm_flops(model.scorer)
             + gemm_flops(lambda: scorer(some_users(split))) * math.ceil(users.numel() / BLOCK_SIZE))

    step_s = once(lambda: [step(batch) for batch in itertools.islice(batches, timed_steps)])
    setup_s, scorer = once(model.scorer), model.scorer()
    rank_s = once(lambda: evaluator(scorer))
    rows = (steps - 1) * first.users.numel() + last.users.numel()
    timed_rows = min(rows, timed_steps * first.users.numel())  # the last batch is a short one
    return {'s': step_s * rows / timed_rows + setup_s + rank_s * users.numel() / timed_users, 'peak_mb': peak_rss_mb(),
            'timed_steps': timed_steps, 'steps': steps, 'timed_users': timed_users, 'users': users.numel(),
            'gemm_flops': flops}


def difference(recipe: Recipe, split: Split, repeat: int) -> Dict[str, float]:
    """Return how far both engines' scores differ, as a share of the largest; in float64 for a few users."""
    pair = [seeded_model(replace(recipe, model=replace(recipe.model, engine=engine)), split)
            for engine in ('dense', 'factored')]
    out = {}
    for name, users in (('difference_float32', some_users(split)), ('difference_float64', some_users(split)[::16])):
        dense, factored = ((model.double() if name.endswith('64') else model).scorer()(users) for model in pair)
        out[name] = float((dense - factored).abs().max() / dense.abs().max())
    return out


def about(recipe: Recipe, split: Split, repeat: int) -> Dict[str, Any]:
    """Return what all figures have in common; ``loaded_mb`` is the memory before anything is built."""
    return {'dataset': split.data.name, 'checksum': split.data.checksum, 'train': str(split.train),
            'batch_size': recipe.training.batch_size, 'reverse_steps': recipe.diffusion.num_steps,
            'block_size': BLOCK_SIZE, 'loaded_mb': peak_rss_mb(), 'gemm_flops_per_s': gemm_rate(),
            'threads': torch.get_num_threads(), 'machine': platform.machine(), 'versions': versions()}


MEASUREMENTS: Dict[str, Callable[[Recipe, Split, int], Dict[str, Any]]] = {
    function.__name__: function for function in (rank_block, train_step, draw_negatives, fit_epoch, difference, about)}


def measure(options: argparse.Namespace) -> Dict[str, Any]:
    """Take one measurement in this process."""
    name, side, sampler = options.side
    recipe = load_recipe(options.dataset)
    recipe = replace(
        recipe, sampler=replace(recipe.sampler, name=sampler, pool_size=recipe.sampler.pool_size or POOL_SIZE),
        diffusion=replace(recipe.diffusion, num_steps=options.num_steps or recipe.diffusion.num_steps),
        model=replace(recipe.model, hidden_channels=options.hidden_channels[0],
                      engine='dense' if side == 'dense' else 'factored',
                      energy_items=ENERGY_ITEMS if side == 'stochastic' else None,
                      energy_rank=options.hidden_channels[0] // 4 if side == 'stochastic' else 0))
    split = Split.from_data(load_data(recipe.dataset, options.data_root), 'paper')
    return MEASUREMENTS[name](recipe, split, options.repeat)


def child(module: str, arguments: List[str], environment: Optional[Dict[str, str]] = None) -> Dict[str, Any]:
    """Run ``python -m MODULE`` in a process of its own, and return the JSON object of its last line."""
    done = subprocess.run([sys.executable, '-m', module, *arguments], stdout=subprocess.PIPE, text=True, check=True,
                          env={**os.environ, **(environment or {})})
    result: Dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def parse(arguments: List[str]) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--dataset', default='movielens-small', help='name of a recipe')
    parser.add_argument('--data-root', default=None)
    parser.add_argument('--hidden-channels', type=int, nargs='+', default=[1000, 256])
    parser.add_argument('--num-steps', type=int, default=None, help="T; the recipe's where absent")
    parser.add_argument('--repeat', type=int, default=7)
    parser.add_argument('--paths', nargs='+', choices=list(COMPARISONS), default=list(COMPARISONS))
    parser.add_argument('--json', default=None)
    parser.add_argument('--side', nargs=3, metavar=('MEASUREMENT', 'SIDE', 'SAMPLER'), help='measure in this process')
    return parser.parse_args(arguments)


def main(argv: Optional[List[str]] = None) -> List[Dict[str, Any]]:
    """Measure, print and write. This process does no work itself: Linux counts its peak memory as its children's."""
    arguments = sys.argv[1:] if argv is None else argv
    options = parse(arguments)
    if options.side:
        print(json.dumps(measure(options)))
        return []

    @functools.cache  # one dense step stands against two fast ones
    def measured(width: int, measurement: str, side: str, sampler: str = 'ar-gsp') -> Dict[str, Any]:
        environment = {'THP_MEM_ALLOC_ENABLE': HUGE_PAGES[side]} if side in HUGE_PAGES else {}
        return child('benchmarks.speed', [*arguments, '--hidden-channels', str(width), '--side', measurement, side,
                                          sampler], environment)

    head = measured(options.hidden_channels[0], 'about', 'factored')
    rate = head['gemm_flops_per_s']
    print(f"{head['dataset']}: {head['train']}, {head['threads']} threads, matrix product {rate / 1e9:.0f} GFLOP/s",
          flush=True)
    records: List[Dict[str, Any]] = []
    table = ['| path | sampler | d | reference, s | subject, s | ratio | products | reference, MB | subject, MB |',
             '|---|---|--:|--:|--:|--:|--:|--:|--:|']
    for width, name in itertools.product(options.hidden_channels, options.paths):
        measurement, *sides = COMPARISONS[name]
        for sampler in ('ar-gsp', 'uniform') if name.startswith('train_step') else ('ar-gsp',):
            row: Dict[str, Any] = {'name': name, 'hidden_channels': width, 'sampler': sampler}
            for role, side in zip(('subject', 'reference'), sides):
                values = measured(width, measurement, side, sampler)
                row.update({f'{role}_{key}': value for key, value in values.items()})
            if name == 'reverse':  # draws no negatives
                row.update(measured(width, 'difference', 'factored'), sampler='')
            row['ratio'] = row['reference_s'] / row['subject_s']
            row['gemm_flops'] = row.pop('subject_gemm_flops')
            row['gemm_floor_s'] = row['gemm_flops'] / rate
            row['gemm_fraction'] = row['gemm_floor_s'] / row['subject_s']
            records.append(row)
            print(f"{name:<21} {row['sampler']:<7} d={width:<4} {sides[1]} {row['reference_s']:.4f} s, {sides[0]} "
                  f"{row['subject_s']:.4f} s, {row['ratio']:.2f} x", flush=True)
            table.append(f"| `{name}` | {row['sampler']} | {width} | {row['reference_s']:.4f} | "
                         f"{row['subject_s']:.4f} | {row['ratio']:.2f} | {row['gemm_fraction']:.0%} | "
                         f"{row['reference_peak_mb']:.0f} | {row['subject_peak_mb']:.0f} |")
    print('', *table, sep='\n')
    if options.json:
        write_json(Path(options.json), {**head, 'records': records})
    return records


if __name__ == '__main__':
    main()
