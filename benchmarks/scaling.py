"""Seconds a training step and peak memory against the size of the graph, on synthetic power-law graphs.

``python -m benchmarks.scaling [--sizes 10000 100000 1000000] [--hidden-channels 64] [--json FILE] [--plot FILE]``

``factored`` is the exact energy with Adam; ``rows`` the energy of 2,048 random items, the rows of H that a step
touches, and the row-lazy Adam; ``dense`` the oracle. A graph of n users x n items has 20 n interactions, items drawn
with weight rank^-0.8. Every point is measured in a process of its own, so that its peak memory is its own. The dense
engine is measured as far as its arrays fit in ``--dense-limit`` GiB.
"""
from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any, Dict, List

os.environ.setdefault('THP_MEM_ALLOC_ENABLE', '1')  # as the command line does; before torch allocates

import torch  # noqa: E402

from benchmarks.speed import child, seconds  # noqa: E402
from tvdiff_pyg.diffusion import GaussianDiffusion, NoiseSchedule  # noqa: E402
from tvdiff_pyg.files import write_json  # noqa: E402
from tvdiff_pyg.interaction_matrix import InteractionMatrix  # noqa: E402
from tvdiff_pyg.nn import AnisotropicDenoiser, HelmholtzFreeEnergy, TVDiff  # noqa: E402
from tvdiff_pyg.sampling import ARGumbelSampler  # noqa: E402
from tvdiff_pyg.training import RowLazyAdam  # noqa: E402
from tvdiff_pyg.training.environment import peak_rss_mb, versions  # noqa: E402
from tvdiff_pyg.training.plots import save_figure  # noqa: E402
from tvdiff_pyg.typing import Batch  # noqa: E402

ENGINES = ('factored', 'rows', 'dense')
INTERACTIONS_PER_USER, EXPONENT, BATCH, POOL = 20, 0.8, 2048, 2048


def power_law_graph(size: int, generator: torch.Generator) -> InteractionMatrix:
    """Return ``size`` users x ``size`` items with about 20 interactions a user, items by a power law."""
    cumulative = torch.arange(1, size + 1, dtype=torch.float64).pow(-EXPONENT).cumsum(0)
    draws = torch.rand(size * INTERACTIONS_PER_USER, dtype=torch.float64, generator=generator) * cumulative[-1]
    item = torch.searchsorted(cumulative, draws).clamp_(max=size - 1)
    user = torch.arange(size).repeat_interleave(INTERACTIONS_PER_USER)
    return InteractionMatrix(torch.stack([user, item]), size, size)


def measure(size: int, width: int, engine: str, repeat: int) -> Dict[str, Any]:
    """Measure one point in this process."""
    generator = torch.Generator().manual_seed(0)
    started = time.perf_counter()
    interactions = power_law_graph(size, generator)
    torch.manual_seed(0)
    variants: Dict[str, Dict[str, Any]] = {'dense': {'engine': 'dense'}, 'factored': {},
                                           'rows': {'energy_items': 2048, 'row_gradients': True}}
    model = TVDiff(interactions, AnisotropicDenoiser(size, size, width), GaussianDiffusion(NoiseSchedule()),
                   HelmholtzFreeEnergy('bpr'), ARGumbelSampler(0.05, pool_size=None if engine == 'dense' else POOL),
                   **variants[engine])
    optimizer = RowLazyAdam(model.parameters()) if engine == 'rows' else \
        torch.optim.Adam(model.parameters(), fused=True)
    index = torch.randint(interactions.num_interactions, (BATCH,), generator=generator)
    batch = Batch(*interactions.edge_index[:, index])
    setup = time.perf_counter() - started

    def step() -> None:
        optimizer.zero_grad()
        model.training_loss(batch, generator).loss.backward()
        optimizer.step()

    return {'size': size, 'interactions': interactions.num_interactions, 'engine': engine, 'hidden_channels': width,
            'batch_size': BATCH, 'setup_s': setup, 'step_s': seconds(step, repeat), 'peak_rss_mb': peak_rss_mb()}


def main(argv: Any = None) -> List[Dict[str, Any]]:
    """Measure every point in its own process, print, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--sizes', type=int, nargs='+', default=[10_000, 30_000, 100_000, 300_000, 1_000_000])
    parser.add_argument('--hidden-channels', type=int, default=64)
    parser.add_argument('--repeat', type=int, default=3)
    parser.add_argument('--dense-limit', type=float, default=16.0, help='GiB that the dense engine may need')
    parser.add_argument('--json', default=None)
    parser.add_argument('--plot', default=None)
    parser.add_argument('--point', nargs=2, metavar=('SIZE', 'ENGINE'), help='measure one point in this process')
    options = parser.parse_args(argv)
    if options.point:
        print(json.dumps(measure(int(options.point[0]), options.hidden_channels, options.point[1], options.repeat)))
        return []

    rows: List[Dict[str, Any]] = []
    for engine in ENGINES:
        for size in options.sizes:
            if engine == 'dense' and 8 * BATCH * size * 4 / 2 ** 30 > options.dense_limit:  # about 8 arrays of B x N
                continue
            row = child('benchmarks.scaling', ['--point', str(size), engine, '--hidden-channels',
                                               str(options.hidden_channels), '--repeat', str(options.repeat)])
            rows.append(row)
            print(f"{engine:<9} {size:>9} users and items, {row['interactions']:>11,} interactions: "
                  f"{row['step_s']:7.3f} s a step, peak {row['peak_rss_mb'] / 1000:6.2f} GB", flush=True)
    result = {'rows': rows, 'threads': torch.get_num_threads(), 'machine': platform.machine(), 'versions': versions()}
    if options.json:
        write_json(Path(options.json), result)
    if options.plot:
        plot(rows, Path(options.plot))
    return rows


def plot(rows: List[Dict[str, Any]], path: Path) -> None:
    """Draw seconds and memory against size, a curve an engine."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout='constrained')
    axes = figure.subplots(1, 2)
    for engine in ENGINES:
        mine = [row for row in rows if row['engine'] == engine]
        size = [row['size'] for row in mine]
        axes[0].loglog(size, [row['step_s'] for row in mine], marker='o', label=engine)
        axes[1].loglog(size, [row['peak_rss_mb'] / 1000 for row in mine], marker='o', label=engine)
    for axis, label in zip(axes, ('seconds a training step', 'peak memory, GB')):
        axis.set_xlabel('users, and items; 20 interactions a user')
        axis.set_ylabel(label)
        axis.legend()
    save_figure(figure, path)


if __name__ == '__main__':
    main()
