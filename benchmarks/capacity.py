"""What training and serving need, as formulas: against stored measurements, and carried to sizes that were not run.

``python -m benchmarks.capacity [--users M] [--items N] [--interactions E] [--hidden-channels d] [--batch-size B]``

The formulas count the factored engine with the exact energy (docs/performance.md), float32. They are compared with
``results/speed-*.json`` and ``results/scaling.json``; what follows for a larger size is arithmetic, not a measurement.
"""
from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import List, Tuple

from tvdiff_pyg.nn.models.tvdiff import NUM_PROBES
from tvdiff_pyg.training.memory import PAIR, PROGRAM, WEIGHT, factored_bytes

RESULTS = Path(__file__).parent / 'results'
H100_BYTES, H100_BANDWIDTH, H100_FLOPS, NETWORK = 80e9, 3.35e12, 67e12, 50e9  # data sheet, float32; 400 Gbit/s a GPU


@dataclass(frozen=True)
class Shape:
    """Sizes.

    Attributes:
        users, items, interactions: M, N, E.
        width: d.
        batch: users, or pairs, a step, B.
        probes: noise rows P.
        pool: items that AR-GSP ranks, C; 0 for uniform negatives.
        steps: T of the reverse process.
    """

    users: float
    items: float
    interactions: float
    width: int
    batch: int = 2048
    probes: int = NUM_PROBES
    pool: int = 2048
    steps: int = 5

    @property
    def history(self) -> float:
        """Interactions a user."""
        return self.interactions / self.users


def step_products(s: Shape) -> float:
    """Return the flops of a training step's dense products: Gram matrix, codes, noise, and the pool's scores."""
    return (4 * (s.items + s.batch) * s.width ** 2 + 4 * s.probes * (s.items + s.batch) * s.width
            + 2 * s.batch * s.pool * s.width)


def step_sums(s: Shape) -> float:
    """Return the flops of its sparse sums: the graph's edges and the batch's entries, forward and backward."""
    return 4 * (s.interactions + s.batch * s.history) * s.width


def step_bytes(s: Shape) -> float:
    """Return the bytes that it must move: a row an edge both ways, the item tables, and Adam's seven passes."""
    return (8 * (s.interactions + s.batch * s.history) * s.width + 4 * 8 * s.items * s.width
            + 28 * (s.users + s.items) * s.width)


def graph_bytes(s: Shape) -> float:
    """Return the bytes of the data: two int64 an interaction, and three and a float32 an edge of the graph."""
    return PAIR * s.interactions


def training_bytes(s: Shape) -> float:
    """Return the memory of training: four of each weight, some temporaries of H, the data, and the batch's arrays."""
    return factored_bytes(s.users, s.items, s.interactions, s.width, s.batch, s.pool, s.probes)


def query_flops(s: Shape) -> float:
    """Return the flops of a list by exact search: the history's rows, T steps in the code's space, all items."""
    return 2 * s.history * s.width + 2 * (s.steps - 1) * s.width ** 2 + 2 * s.items * s.width


def serving_bytes(s: Shape) -> float:
    """Return the memory of an export: the encoder's rows and the items' vectors."""
    return 8 * s.items * s.width


def compare() -> List[Tuple[str, str, float, float]]:
    """Return what was compared: where, what, formula, measured."""
    out = []
    for path in sorted(RESULTS.glob('speed-*.json')):
        record = json.loads(path.read_text(encoding='utf-8'))
        if 'train' not in record:
            continue
        users, items, pairs = map(int, re.findall(r'(\d+) (?:users|items|interactions)', record['train']))
        for row in record['records']:
            shape = Shape(users, items, pairs, row['hidden_channels'], record['batch_size'],
                          pool=2048 if row['sampler'] == 'ar-gsp' else 0, steps=record['reverse_steps'])
            where = f"{record['dataset']}, d = {row['hidden_channels']}"
            if row['name'] == 'train_step_exact':
                out.append((f"{where}, {row['sampler']}", 'step, dense products, GFLOP', step_products(shape) / 1e9,
                            row['gemm_flops'] / 1e9))
                out.append((f"{where}, {row['sampler']}", 'step, memory, MB', training_bytes(shape) / 1e6,
                            row['subject_peak_mb'] - record['loaded_mb']))
            elif row['name'] == 'reverse':
                block = record['block_size']
                once = 2 * items * row['hidden_channels'] ** 2 * block / users  # K, by a block's share
                out.append((where, 'a block of lists, GFLOP', (block * query_flops(replace(
                    shape, interactions=0)) + once) / 1e9, row['gemm_flops'] / 1e9))
    for row in json.loads((RESULTS / 'scaling.json').read_text(encoding='utf-8'))['rows']:
        if row['engine'] == 'factored' and row['size'] >= 1e5:
            shape = Shape(row['size'], row['size'], row['interactions'], row['hidden_channels'], row['batch_size'])
            out.append((f"synthetic, {row['size']:,} x {row['size']:,}, d = {row['hidden_channels']}",
                        'step, memory, MB', training_bytes(shape) / 1e6, row['peak_rss_mb'] - PROGRAM / 1e6))
    return out


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('--users', type=float, default=1e8)
    parser.add_argument('--items', type=float, default=1e7)
    parser.add_argument('--interactions', type=float, default=1e10)
    parser.add_argument('--hidden-channels', type=int, default=128)
    parser.add_argument('--batch-size', type=int, default=2 ** 20)
    options = parser.parse_args()
    print('| where | what | formula | measured | |\n|---|---|--:|--:|--:|')
    for where, what, formula, measured in compare():
        print(f'| {where} | {what} | {formula:,.1f} | {measured:,.1f} | {formula / measured - 1:+.0%} |')
    s = Shape(options.users, options.items, options.interactions, options.hidden_channels, options.batch_size)
    tables, item_side = WEIGHT * s.users * s.width, training_bytes(replace(s, users=1, interactions=0))
    shared = graph_bytes(s) + tables
    gpus = next((n for n in (2 ** k for k in range(20)) if item_side + shared / n <= H100_BYTES), None)
    print(f'\n{s.users:,.0f} users x {s.items:,.0f} items, {s.interactions:,.0f} interactions, d = {s.width}, '
          f'B = {s.batch:,}; by data sheet of an H100: {H100_BYTES / 1e9:.0f} GB, {H100_BANDWIDTH / 1e12:.2f} TB/s, '
          f'{H100_FLOPS / 1e12:.0f} TFLOP/s')
    for what, value in (
            ('memory of training, all on each process', f'{training_bytes(s) / 1e9:,.0f} GB'),
            ('of it the interactions and the graph', f'{graph_bytes(s) / 1e9:,.0f} GB'),
            ('of it the user table with gradient and moments', f'{tables / 1e9:,.0f} GB'),
            ('of it what belongs to items and the batch', f'{item_side / 1e9:,.0f} GB'),
            ('step: dense products', f'{step_products(s) / 1e12:,.1f} TFLOP'),
            ('step: sparse sums', f'{step_sums(s) / 1e12:,.1f} TFLOP'),
            ('step: bytes', f'{step_bytes(s) / 1e12:,.1f} TB'),
            ('steps an epoch', f'{s.users / s.batch:,.0f}'),
            ('GPUs, were users, their table and their edges split',
             str(gpus or 'no number: what belongs to items fills one')),
            *([('  their step: bytes of memory', f'{(step_bytes(s) / gpus) / H100_BANDWIDTH:,.2f} s'),
               ('  their step: products', f'{step_products(s) / gpus / H100_FLOPS:,.2f} s')] if gpus else []),
            ('  their step: sums of H, its gradient and that of W_I over the network',
             f'{3 * 2 * 4 * s.items * s.width / NETWORK:,.2f} s'),
            ('export', f'{serving_bytes(s) / 1e9:,.1f} GB'),
            ('list by exact search', f'{query_flops(s) / 1e9:,.2f} GFLOP'),
            ('  bytes that a batch of lists reads, whatever its size', f'{4 * s.items * s.width / 1e9:,.1f} GB'),
            ('lists for everybody', f'{s.users * query_flops(s) / 1e15:,.0f} PFLOP')):
        print(f'{what:<72} {value}')


if __name__ == '__main__':
    main()
