"""The figures of a data set: sizes, density, degrees, and what was dropped."""
from __future__ import annotations

from typing import Any, Dict

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from tvdiff_pyg.transforms.edge_types import RATES

_PARTS = {'train': 'edge_index', 'validation': 'val_edge_label_index', 'test': 'edge_label_index'}
_DROPPED = {
    'low_ratings': 'rows below the least rating',
    'k_core_pairs': 'pairs outside the k-core',
    'k_core_users': 'users outside the k-core',
    'k_core_items': 'items outside the k-core',
    'validation_pairs': 'validation pairs whose user or item is absent from train',
    'validation_users': 'users of validation absent from train',
    'validation_items': 'items of validation absent from train',
    'validation_pairs_seen': 'validation pairs seen before',
    'test_pairs': 'test pairs whose user or item is absent from train',
    'test_users': 'users of test absent from train',
    'test_items': 'items of test absent from train',
    'test_pairs_seen': 'test pairs seen before',
    'duplicate_pairs': 'repeated pairs',
}


def gini(values: Tensor) -> float:
    r"""Return the Gini coefficient of some sizes: 0 where all are equal, near 1 where few have nearly all.

    .. math::
        G = \frac{\sum_i \sum_j |d_i - d_j|}{2 n \sum_i d_i}
          = \frac{2 \sum_i i\, d_{(i)}}{n \sum_i d_i} - \frac{n + 1}{n}

    with :math:`d_{(1)} \le \dots \le d_{(n)}`; 0 where all are 0.

    Args:
        values: the sizes, ``[n]``, at least 0.

    Raises:
        ValueError: ``values`` is no vector, is empty, or holds one below 0.
    """
    if values.dim() != 1 or values.numel() == 0 or not bool((values >= 0).all()):
        raise ValueError(f"'values' must be a vector of numbers >= 0, got shape {list(values.shape)}"
                         f"{f' with {values.min().item()}' if values.numel() else ''}")
    size = values.double().sort().values
    if size[-1] == 0:
        return 0.0
    number = size.numel()
    rank = torch.arange(1, number + 1, dtype=torch.double, device=size.device)
    return max(0.0, float(2 * (rank * size).sum() / (number * size.sum()) - (number + 1) / number))


def statistics(data: HeteroData) -> Dict[str, Any]:
    """Return the figures of an interaction graph.

    Args:
        data: the graph as data sets and :class:`~tvdiff_pyg.transforms.HoldOut` give it.

    Returns:
        ``name``; ``users`` and ``items``; ``pairs`` of ``train``, ``validation`` and ``test``; and of the pairs of
        all parts together: ``density``, their number divided by users x items, and for ``user_degree`` and
        ``item_degree`` the ``mean``, ``median`` (the mean of the middle two), ``max`` and ``gini`` (see
        :func:`gini`). ``dropped`` is that of the data: what reading, filters and split left out.

    Raises:
        ValueError: the data has no training edges.
    """
    if RATES not in data.edge_types or 'edge_index' not in data[RATES] or data[RATES].edge_index.size(1) == 0:
        raise ValueError(f"the data has no 'edge_index' for edge type {RATES}; "
                         f"build it with tvdiff_pyg.datasets.interaction_data")
    store = data[RATES]
    parts = {part: store[name] for part, name in _PARTS.items() if name in store}
    pairs = torch.cat(list(parts.values()), dim=1)
    sizes = (int(data['user'].num_nodes), int(data['item'].num_nodes))
    degrees = {}
    for row, name in enumerate(('user_degree', 'item_degree')):
        degree = torch.bincount(pairs[row], minlength=sizes[row])
        ordered = degree.sort().values
        middle = ordered[[(sizes[row] - 1) // 2, sizes[row] // 2]].double().mean()
        degrees[name] = {'mean': pairs.size(1) / sizes[row], 'median': float(middle), 'max': int(ordered[-1]),
                         'gini': gini(degree)}
    return {
        'name': data.get('name', ''),
        'users': sizes[0],
        'items': sizes[1],
        'pairs': {part: parts[part].size(1) if part in parts else 0 for part in _PARTS},
        'density': pairs.size(1) / (sizes[0] * sizes[1]),
        **degrees,
        'dropped': dict(data.get('dropped', {})),
    }


def describe_statistics(figures: Dict[str, Any]) -> str:
    """Return the figures of :func:`statistics` in words, a few lines."""
    pairs, dropped = figures['pairs'], figures['dropped']
    lines = [f"{figures['name']}: {figures['users']} users x {figures['items']} items, {sum(pairs.values())} pairs "
             f"({', '.join(f'{number} {part}' for part, number in pairs.items())}), density {figures['density']:.3%}"]
    for kind, other in (('user', 'items'), ('item', 'users')):
        degree = figures[f'{kind}_degree']
        lines.append(f"{other} per {kind}: mean {degree['mean']:.1f}, median {degree['median']:g}, "
                     f"max {degree['max']}, Gini {degree['gini']:.3f}")
    said = [f'{number} {_DROPPED.get(name, name)}' for name, number in dropped.items() if number]
    lines.append(f"dropped: {'; '.join(said) or 'nothing'}")
    return '\n'.join(lines)
