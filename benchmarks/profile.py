"""Where a training step's time goes, and how near each part comes to what the machine can do.

``python -m benchmarks.profile --dataset lastfm --data-root DIR [--hidden-channels 1000] [--json FILE]``

Every operator of the step is timed, and its work counted: flops of the matrix products, bytes of the operands that
anything else reads and writes (of a gather or a sparse product, of the rows that it fetches). The rates stand beside
those of a plain matrix product and of a plain copy, measured in the same run: a part near one of them is bound by it.
"""
from __future__ import annotations

import argparse
import os
import platform
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Tuple

os.environ.setdefault('THP_MEM_ALLOC_ENABLE', '1')  # as the command line does; before torch allocates

import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from benchmarks.speed import gemm_rate, seconds, training  # noqa: E402
from tvdiff_pyg.files import write_json  # noqa: E402
from tvdiff_pyg.training import Split, load_data, load_recipe  # noqa: E402
from tvdiff_pyg.training.environment import versions  # noqa: E402

PRODUCTS = {'mm', 'addmm', 'addmm_'}
PARTS = {
    'sparse sums (embedding_bag)': {'_embedding_bag', '_embedding_bag_forward_only'},
    'sampled products': {'sparse_sampled_addmm'},
    'optimiser (fused Adam)': {'_fused_adam_', '_fused_adamw_'},
    'random numbers': {'normal_', 'randn', 'rand', 'randint', 'bernoulli_', 'exponential_', 'uniform_', 'randperm'},
    'sorting and searching': {'sort', 'argsort', 'topk', '_unique2', 'unique_dim', 'searchsorted', 'bincount',
                              'cumsum', 'nonzero', 'isin'},
}


def part_of(name: str) -> str:
    """Return the part of the step that an operator belongs to."""
    if name in PRODUCTS:
        return 'matrix products'
    return next((part for part, names in PARTS.items() if name in names), 'elementwise, copies, the rest')


def size(tensor: Tensor) -> int:
    """Return a tensor's bytes; of a sparse one, those of its entries."""
    return tensor._nnz() * 20 if tensor.layout == torch.sparse_csr else tensor.numel() * tensor.element_size()


def work(name: str, args: Tuple[Any, ...], out: Any) -> Tuple[float, float]:
    """Return an operator's flops, if it is a matrix product, and else the bytes that it has to move."""
    if name in PRODUCTS:
        left, right = args[-2:]
        return 2.0 * left.size(0) * left.size(1) * right.size(1), 0.0
    written = sum(size(leaf) for leaf in tree_leaves(out) if isinstance(leaf, Tensor))
    if part_of(name).startswith('sparse sums'):
        table, index = args[:2]
        return 0.0, index.numel() * (table.size(1) * table.element_size() + 16.0) + size(out[0])
    if name == 'sparse_sampled_addmm':
        pattern, left = args[:2]
        return 0.0, pattern._nnz() * (2.0 * left.size(1) * left.element_size() + 20)
    if name in ('index_select', 'index', 'embedding'):
        return 0.0, 2.0 * written
    if name.startswith('_fused_adam'):
        return 0.0, 7.0 * sum(size(parameter) for parameter in args[0])  # reads p, g, m, v, writes p, m, v
    return 0.0, float(sum(size(leaf) for leaf in tree_leaves(args) if isinstance(leaf, Tensor)) + written)


class Ledger(TorchDispatchMode):
    """Adds up seconds, flops and bytes of every operator that runs within."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: Dict[str, List[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        started = time.perf_counter()
        out = func(*args, **(kwargs or {}))
        elapsed = time.perf_counter() - started
        name = func.overloadpacket.__name__
        if not func.is_view:
            for position, amount in enumerate((elapsed, *work(name, args, out))):
                self.parts[part_of(name)][position] += amount
        return out


def copy_rate(count: int = 2 ** 26) -> float:
    """Return the bytes a second that a plain copy reads and writes."""
    source, target = torch.ones(count), torch.ones(count)
    return 2 * size(source) / seconds(lambda: target.copy_(source), 5)


def main(argv: Any = None) -> List[Dict[str, Any]]:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--dataset', default='movielens-small', help='name of a recipe')
    parser.add_argument('--data-root', default=None)
    parser.add_argument('--hidden-channels', type=int, default=1000)
    parser.add_argument('--engine', choices=('factored', 'dense'), default='factored')
    parser.add_argument('--repeat', type=int, default=5, help='steps that are added up, after one that does not count')
    parser.add_argument('--json', default=None)
    options = parser.parse_args(argv)

    recipe = load_recipe(options.dataset)
    recipe = replace(recipe, model=replace(recipe.model, hidden_channels=options.hidden_channels,
                                           engine=options.engine))
    split = Split.from_data(load_data(recipe.dataset, options.data_root), 'paper')
    _, batches, step = training(recipe, split)
    batch = next(iter(batches))
    plain = seconds(lambda: step(batch), options.repeat)
    ledger = Ledger()
    with ledger:
        for _ in range(options.repeat):
            step(batch)
    flops, copied = gemm_rate(), copy_rate()

    rows = []
    total = sum(amounts[0] for amounts in ledger.parts.values()) / options.repeat
    for part, amounts in sorted(ledger.parts.items(), key=lambda item: -item[1][0]):
        spent, products, moved = (amount / options.repeat for amount in amounts)
        at_best = products / flops + moved / copied
        rows.append({'part': part, 's': spent, 'share': spent / total, 'flops': products, 'bytes': moved,
                     'at_best_s': at_best, 'fraction': at_best / spent})
    print(f"{split.data.name}, d = {options.hidden_channels}, engine {options.engine}: {plain:.3f} s a step, "
          f"{torch.get_num_threads()} threads; matrix product {flops / 1e9:.0f} GFLOP/s, copy "
          f"{copied / 1e9:.1f} GB/s\n")
    print('| part | s | share of the step | GFLOP | GB | at the measured rates, s | reached |',
          '|---|--:|--:|--:|--:|--:|--:|', sep='\n')
    for row in rows:
        print(f"| {row['part']} | {row['s']:.4f} | {row['share']:.0%} | {row['flops'] / 1e9:.1f} | "
              f"{row['bytes'] / 1e9:.2f} | {row['at_best_s']:.4f} | {row['fraction']:.0%} |")
    if options.json:
        result = {'dataset': split.data.name, 'checksum': split.data.checksum, 'engine': options.engine,
                  'hidden_channels': options.hidden_channels, 'step_s': plain, 'gemm_flops_per_s': flops,
                  'copy_bytes_per_s': copied, 'parts': rows, 'threads': torch.get_num_threads(),
                  'machine': platform.machine(), 'versions': versions()}
        write_json(Path(options.json), result)
    return rows


if __name__ == '__main__':
    main()
