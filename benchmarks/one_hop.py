"""One hop against K hops: smoothness and entropy of the score matrix, over planted graphs, data sets and trained runs.

``python -m benchmarks.one_hop [--datasets lastfm ...] [--runs RUN ...] --data-root DIR [--json FILE] [--plot FILE]``

S = u H^T of clean rows at step 0 without dropout; H_K = tanh((Rbar^T Rbar)^(K-1) Rbar^T W_U), and the same without the
tanh, to tell the graph's part from the non-linearity's. Weights are drawn as at initialisation, the same for all
graphs of a seed, or are those of a finished run, whose K = 1 is the trained model. Rows of other graphs and runs that
``--json`` holds are kept. What came out: ``docs/theory.md``.
"""
from __future__ import annotations

import argparse
import json
import math
import platform
import time
from pathlib import Path
from typing import Any, Dict, List, Sequence

import torch
from torch import Tensor

from tvdiff_pyg.datasets import gini, load_dataset
from tvdiff_pyg.files import write_text
from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn import AnisotropicDenoiser, TVDiff, TVDiffConv
from tvdiff_pyg.nn.functional import Entries
from tvdiff_pyg.nn.graph import NormalizedGraph
from tvdiff_pyg.split import Split
from tvdiff_pyg.thermodynamics import CLIP, sample_users, thermodynamics
from tvdiff_pyg.training import Run
from tvdiff_pyg.training.environment import versions
from tvdiff_pyg.training.folder import read_settings
from tvdiff_pyg.training.plots import save_figure

NORMALIZATIONS = ('sym', 'left', 'linkprop')
PLANTED: List[Dict[str, Any]] = [
    *({'density': density, 'exponent': power} for density in (0.005, 0.02, 0.1) for power in (0.0, 0.5, 1.0, 1.5)),
    {'density': 0.02, 'exponent': 1.0, 'user_exponent': 1.0}, {'density': 0.02, 'exponent': 1.0, 'communities': 8}]
KEY = ('graph', 'weights', 'normalization', 'hidden_channels', 'act')  # rows that agree in these are the same
BLOCK_ENTRIES = 2 ** 22
MEASURES = ('smoothness', 'smoothness_sym', 'entropy', 'delta_entropy', 'entropy_se', 'clipped', 'saturated')
COMPARED = ('smoothness', 'smoothness_sym', 'entropy')
COLUMNS = {'smoothness': 3, 'smoothness_sym': 3, 'delta_entropy': 2, 'clipped': 2, 'saturated': 2}  # and places


def planted_graph(num_users: int, num_items: int, generator: torch.Generator, density: float, exponent: float,
                  user_exponent: float = 0.0, communities: int = 1) -> InteractionMatrix:
    """Return a random graph of exactly ``round(density M N)`` pairs; nothing of size M x N is made.

    Pairs are drawn with weight rank^-``exponent`` of the item and rank^-``user_exponent`` of the user, and anew where
    they repeat. Of several communities, each with items of all ranks, a user draws nine in ten from the own one.
    """
    wanted = round(density * num_users * num_items)
    weights = [torch.arange(1, size + 1, dtype=torch.float64).pow(-power)
               for size, power in ((num_users, user_exponent), (num_items, exponent))]
    key = torch.empty(0, dtype=torch.long)
    while key.numel() < wanted:
        user, item = (torch.multinomial(weight, wanted - key.numel(), replacement=True, generator=generator)
                      for weight in weights)
        own = (item - item % communities + user % communities).clamp_(max=num_items - 1)  # of nearly the same rank
        item = torch.where(torch.rand(item.numel(), generator=generator) < 0.9, own, item)
        key = torch.cat([key, user * num_items + item]).unique()
    return InteractionMatrix(torch.stack([key // num_items, key % num_items]), num_users, num_items)


def smoothness(gram: Tensor, items: Tensor, graph: NormalizedGraph) -> float:
    r"""Return :math:`tr(S L S^T) / |S|_F^2`, :math:`S = U H^T`, :math:`L = I - \bar R^T \bar R`; less is smoother.

    It is :math:`1 - |\bar R S^T|_F^2 / |S|_F^2`, and :math:`|X U^T|_F^2 = tr(U^T U\, X^T X)` for X = H and for
    :math:`X = \bar R H`. Flops: 2 E d for the sparse product, 2 (M + N) d^2 for the Gram matrices of X, and once 2 M
    d^2 for that of U. Bytes, at 4 a number: 4 (E d + 2 M d + 2 N d), each row of H being fetched for every edge. The
    dense way takes 2 M N d + 2 E M flops and two arrays of M x N.

    Args:
        gram: U^T U ``[d, d]`` of the user codes.
        items: H ``[N, d]``.
        graph: the normalised graph from users to items.
    """
    norms = [float((gram.double() * (x.t() @ x).double()).sum()) for x in (items, graph.transpose_matmul(items))]
    return 1 - norms[1] / norms[0]


def entropy(code: Tensor, items: Tensor, interactions: InteractionMatrix, users: Tensor) -> Dict[str, float]:
    """Return S's entropy a user (SPEC 10, ours), what it has above the data's, and the share of clipped scores."""
    clipped: List[int] = []

    def score(block: Tensor) -> Tensor:
        scores = code[block] @ items.t()
        clipped.append(int((scores <= CLIP).sum()))
        return scores

    found = thermodynamics(score, interactions, 'clip', users=users, block_entries=BLOCK_ENTRIES)
    total, number = found.total(), found.users.numel()
    model = total['delta_entropy'] + total['data_entropy']
    return {'entropy': model / found.population, 'delta_entropy': total['delta_entropy'] / found.population,
            'entropy_se': total['delta_entropy_se'] / found.population,
            'clipped': sum(clipped) / (number * items.size(0))}


def limit_entropy(interactions: InteractionMatrix) -> float:
    """Return the entropy, less the data's mean, of p in proportion to sqrt(item degree): where K hops with sym end.

    It is the eigenvector of Rbar^T Rbar for the eigenvalue 1 of a connected graph, the only one that many hops leave.
    """
    p, degree = interactions.item_degree.double().sqrt(), interactions.user_degree.double()
    return float(torch.special.entr(p / p.sum()).sum() / math.log(2) - degree[degree > 0].log2().mean())


@torch.no_grad()
def measure(denoiser: AnisotropicDenoiser, interactions: InteractionMatrix, hops: int, num_users: int,
            seed: int) -> Dict[str, Dict[str, List[float]]]:
    """Return every measure for K = 1 .. ``hops`` with these weights, with tanh and without (``linear``).

    The entropy is that of ``num_users`` users, a random sample by ``seed`` where there are more.
    """
    if denoiser.conv is None or len(denoiser.widths) > 1 or denoiser.num_hops > 1:
        raise ValueError("'denoiser' must have a graph, one layer and one hop: with others K hops are not its own")
    users = sample_users(interactions, num_users, torch.Generator().manual_seed(seed))
    adj_t = interactions.adj_t().to(denoiser.item_weight.dtype)
    graph, sym = denoiser.conv.prepare(adj_t), TVDiffConv(denoiser.num_users, 1, 'sym').prepare(adj_t)
    row, item = interactions.edge_index
    rows = Entries.of(row, item, denoiser.num_users, denoiser.num_items)
    code = denoiser.code(rows.matmul(None, denoiser.item_weight), torch.zeros(denoiser.num_users, dtype=torch.long))
    gram = code.t() @ code
    out: Dict[str, Dict[str, List[float]]] = {act: {name: [] for name in MEASURES} for act in ('tanh', 'linear')}
    linear = graph.matmul(denoiser.conv.weight)
    for hop in range(hops):
        linear = graph.matmul(graph.transpose_matmul(linear)) if hop > 0 else linear
        for act, items in (('tanh', linear.tanh()), ('linear', linear)):
            values = {'smoothness': smoothness(gram, items, graph), 'smoothness_sym': smoothness(gram, items, sym),
                      'saturated': float((linear.abs() > 1).double().mean()),
                      **entropy(code, items, interactions, users)}
            for name in MEASURES:
                out[act][name].append(values[name])
    return out


def initial(name: str, graphs: Sequence[InteractionMatrix], options: argparse.Namespace) -> List[Dict[str, Any]]:
    """Measure random weights: graph i, or the only one, meets those of seed i. Rows as of :func:`summary`."""
    out = []
    for normalization in NORMALIZATIONS:
        found = []
        for position, seed in enumerate(options.seeds):
            graph = graphs[position % len(graphs)]
            torch.manual_seed(seed)  # the same draws for every normalisation
            denoiser = AnisotropicDenoiser(graph.num_users, graph.num_items, options.hidden_channels,
                                           normalization=normalization)
            found.append(measure(denoiser, graph, options.hops, options.users, seed))
        out += summary(name, 'initial', denoiser, graphs[0], options.seeds, found)
    return out


def trained(folder: str, options: argparse.Namespace) -> List[Dict[str, Any]]:
    """Measure a finished run."""
    run, seed = Run.load(folder), read_settings(Path(folder)).seed
    if not isinstance(run.model, TVDiff):
        raise ValueError(f"'--runs' must name runs of tv-diff; {folder} is one of {run.recipe.model.name}")
    found = measure(run.model.denoiser, run.split.train, options.hops, options.users, seed)
    return summary(run.split.data.name, f'trained, {run.split.protocol}, seed {seed}', run.model.denoiser,
                   run.split.train, [seed], [found])


def summary(name: str, weights: str, denoiser: AnisotropicDenoiser, graph: InteractionMatrix, seeds: List[int],
            found: List[Dict[str, Dict[str, List[float]]]]) -> List[Dict[str, Any]]:
    """Return, with tanh and without, lists over K: means over seeds, deviations, and in how many one hop is lower."""
    facts = {'density': graph.num_interactions / graph.num_users / graph.num_items,
             'item_gini': gini(graph.item_degree), 'user_gini': gini(graph.user_degree),
             'limit_entropy': limit_entropy(graph)}
    out = []
    for act in ('tanh', 'linear'):
        row: Dict[str, Any] = {
            'graph': name, 'weights': weights, 'seeds': seeds, 'normalization': denoiser.normalization, 'act': act,
            'hidden_channels': denoiser.widths[0], 'num_users': graph.num_users, 'num_items': graph.num_items,
            **{key: float(f'{value:.4g}') for key, value in facts.items()}}
        for key in MEASURES:
            values = torch.tensor([each[act][key] for each in found])  # [seeds, K]
            row[key] = [round(value, 4) + 0.0 for value in values.mean(0).tolist()]  # + 0.0: no minus before a zero
            if key in COMPARED:
                row[f'{key}_sd'] = [round(sd, 4) for sd in values.std(0, correction=min(1, len(found) - 1)).tolist()]
                row[f'{key}_one_hop_lower'] = (values[:, :1] < values).sum(0).tolist()
        out.append(row)
        print(line(row), flush=True)
    return out


def line(row: Dict[str, Any]) -> str:
    """Return a row of the Markdown table that is printed."""
    lower = (' '.join(map(str, row[f'{name}_one_hop_lower'][1:])) for name in COMPARED)
    cells = (row['graph'], row['weights'], f"{row['normalization']}, {row['act']}", f"{row['limit_entropy']:.2f}",
             *(' '.join(f'{value:.{places}f}' for value in row[name]) for name, places in COLUMNS.items()),
             f"{', '.join(lower)} of {len(row['seeds'])}")
    return f"| {' | '.join(cells)} |"


def main(argv: Any = None) -> List[Dict[str, Any]]:
    """Measure, print, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--datasets', nargs='*', default=[])
    parser.add_argument('--runs', nargs='*', default=[], help='folders of finished runs of tv-diff')
    parser.add_argument('--data-root', default=None)
    parser.add_argument('--hops', type=int, default=4)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2, 3, 4])
    parser.add_argument('--hidden-channels', type=int, default=256)
    parser.add_argument('--planted-size', type=int, nargs=2, default=[1000, 800], metavar=('USERS', 'ITEMS'))
    parser.add_argument('--users', type=int, default=256, help='random users whose entropy is averaged')
    parser.add_argument('--json', default=None)
    parser.add_argument('--plot', default=None)
    options = parser.parse_args(argv)

    started = time.process_time()
    before = read_rows(Path(options.json), options) if options.json else []
    print('| graph | weights | Rbar, act | limit of the entropy | smoothness, K = 1, 2, ... | by the L of sym | '
          'entropy - log2 n_u | clipped | saturated | seeds where one hop is lower |\n|---|---|---|--:|' + '---|' * 6)
    rows: List[Dict[str, Any]] = []
    users, items = options.planted_size
    for settings in PLANTED:
        graphs = [planted_graph(users, items, torch.Generator().manual_seed(seed), **settings)
                  for seed in options.seeds]
        name = 'planted ' + ', '.join(f'{key.replace("_", " ")} {value:g}' for key, value in settings.items())
        rows += initial(name, graphs, options)
    for dataset in options.datasets:
        split = Split.from_data(load_dataset(dataset, options.data_root), 'paper')  # the whole training part
        rows += initial(dataset, [split.train], options)
    rows += [row for folder in options.runs for row in trained(folder, options)]
    if options.json:
        again = {tuple(row[name] for name in KEY) for row in rows}
        rows = sorted([row for row in before if tuple(row[name] for name in KEY) not in again] + rows,
                      key=lambda row: (row['weights'] != 'initial', not row['graph'].startswith('planted')))
        about = {'planted_size': options.planted_size, 'users': options.users, 'threads': torch.get_num_threads(),
                 'cpu_s': round(time.process_time() - started), 'machine': platform.machine(), 'versions': versions()}
        text = ',\n'.join(json.dumps(row) for row in rows)  # a line a row: lists over K are short
        write_text(Path(options.json), f'{json.dumps(about)[:-1]}, "rows": [\n{text}\n]}}\n')
    if options.plot:
        plot(rows, Path(options.plot))
    return rows


def read_rows(file: Path, options: argparse.Namespace) -> List[Dict[str, Any]]:
    """Return the rows that a JSON holds.

    Raises:
        SystemExit: they are of another planted size, or of other users, hops, or initial weights.
    """
    if not file.is_file():
        return []
    record = json.loads(file.read_text(encoding='utf-8'))
    rows: List[Dict[str, Any]] = record['rows']
    if [record['planted_size'], record['users']] != [options.planted_size, options.users] or any(
            len(row['entropy']) != options.hops or row['weights'] == 'initial'
            and [row['seeds'], row['hidden_channels']] != [options.seeds, options.hidden_channels] for row in rows):
        raise SystemExit(f'{file} was written with other options: name another --json')
    return rows


def plot(rows: List[Dict[str, Any]], path: Path) -> None:
    """Draw smoothness and entropy against K with sym and tanh: planted graphs above, the others below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7), layout='constrained')
    # Exponents between the ends would crowd it.
    drawn = [row for row in rows if (row['normalization'], row['act']) == ('sym', 'tanh')
             and not row['graph'].endswith((' 0.5', 'exponent 1'))]
    axes, names = figure.subplots(2, 2), list(dict.fromkeys(row['graph'] for row in drawn))
    for row in drawn:
        number, hops = names.index(row['graph']), range(1, len(row['entropy']) + 1)
        for axis, name in zip(axes[0 if row['graph'].startswith('planted') else 1], ('smoothness', 'delta_entropy')):
            axis.plot(hops, row[name], f'C{number % 10}o{"--" if row["weights"] == "initial" else "-"}',
                      label=f"{row['graph']}, {row['weights']}")
            axis.set(xlabel='hops K', xticks=hops)
    for pair in axes:
        pair[0].set_ylabel('tr(S L S^T) / |S|^2, less is smoother')
        pair[1].set_ylabel('entropy - log2 n_u, bits a user')
        pair[1].legend(fontsize='small', loc='upper left', bbox_to_anchor=(1, 1))
    save_figure(figure, path)


if __name__ == '__main__':
    main()
