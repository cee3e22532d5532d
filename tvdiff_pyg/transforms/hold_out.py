"""A seeded per-user hold-out of training interactions (SPEC 12)."""
from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.data.storage import EdgeStorage
from torch_geometric.transforms import BaseTransform

from tvdiff_pyg.transforms.edge_types import RATED_BY, RATES

_LABELS = ('edge_label', 'edge_label_index', 'val_edge_label_index')


def hold_out_mask(user_index: Tensor, ratio: float, min_interactions: int, generator: torch.Generator) -> Tensor:
    r"""Choose a random part of each user's interactions (SPEC 12).

    A user with :math:`n_u` interactions gives :math:`\max(1, \mathrm{round}(\mathrm{ratio} \cdot n_u))` of them
    where :math:`n_u \ge` ``min_interactions``, else none. Halves round to the even number, as Python's
    ``round`` does, and a user always keeps at least one interaction.

    Args:
        user_index: the user of each interaction, ``[E]``. The choice depends on the order of the
            interactions: sort them first where it should not.
        ratio: the part to hold out, between 0 and 1, both excluded.
        min_interactions: users with fewer interactions give none; at least 2.
        generator: the only source of randomness.

    Returns:
        A boolean mask ``[E]``, true where the interaction is held out.

    Raises:
        ValueError: ``ratio`` or ``min_interactions`` is out of range, or ``user_index`` is not a vector.
    """
    _check(ratio, min_interactions)
    if user_index.dim() != 1:
        raise ValueError(f"'user_index' must be a vector, got shape {list(user_index.shape)}")
    num_edges = user_index.numel()
    _, user, count = user_index.unique(return_inverse=True, return_counts=True)
    quota = (count.double() * ratio).round().long().clamp(min=1).minimum(count - 1)
    quota[count < min_interactions] = 0
    noise = torch.rand(num_edges, dtype=torch.float64, generator=generator, device=generator.device)
    perm = noise.to(user.device).argsort(stable=True)
    perm = perm[user[perm].argsort(stable=True)]  # users in order, each one's interactions shuffled
    start = (count.cumsum(0) - count)[user[perm]]
    rank = torch.arange(num_edges, device=user.device) - start
    mask = torch.empty(num_edges, dtype=torch.bool, device=user.device)
    mask[perm] = rank < quota[user[perm]]
    return mask


class HoldOut(BaseTransform):
    """Move a seeded, random part of each user's training edges to ``val_edge_label_index`` (SPEC 12).

    The part is that of :func:`hold_out_mask` and does not depend on the order of the edges. The reverse edges
    and whatever else is stored per edge follow; the input object stays as it was.

    Args:
        ratio: the part to hold out, between 0 and 1, both excluded.
        min_interactions: users with fewer training edges give none; at least 2.
        seed: seed of the choice.
        keep_existing: return data that already has ``val_edge_label_index`` as it is, instead of raising.

    Raises:
        ValueError: an argument is out of range; or, when called, the data already has
            ``val_edge_label_index``, has no training edges, or repeats one.
    """

    def __init__(self, ratio: float = 0.1, min_interactions: int = 3, seed: int = 0,
                 keep_existing: bool = False) -> None:
        _check(ratio, min_interactions)
        self.ratio = ratio
        self.min_interactions = min_interactions
        self.seed = seed
        self.keep_existing = keep_existing

    def forward(self, data: HeteroData) -> HeteroData:
        """Apply the transform to a shallow copy; call the object itself rather than this method."""
        if RATES not in data.edge_types or 'edge_index' not in data[RATES]:
            raise ValueError(f"the data has no 'edge_index' for edge type {RATES}; "
                             f"build it with tvdiff_pyg.datasets.interaction_data")
        store = data[RATES]
        if 'val_edge_label_index' in store:
            if self.keep_existing:
                return data
            raise ValueError("the data already has 'val_edge_label_index'; use that validation part, "
                             "or pass keep_existing=True to leave such data as it is")

        edge_index = store.edge_index
        num_items = data['item'].num_nodes
        key = edge_index[0] * num_items + edge_index[1]
        key_sorted, perm = key.sort()
        if bool((key_sorted[1:] == key_sorted[:-1]).any()):
            raise ValueError("'edge_index' repeats an edge, so the parts could not be disjoint; "
                             "coalesce it first")
        generator = torch.Generator().manual_seed(self.seed)
        mask = torch.empty_like(perm, dtype=torch.bool)
        mask[perm] = hold_out_mask(edge_index[0][perm], self.ratio, self.min_interactions, generator)
        assert not bool(torch.isin(key[mask], key[~mask]).any())

        _keep(store, ~mask)
        store.val_edge_label_index = edge_index[:, perm[mask[perm]]]
        if RATED_BY in data.edge_types:
            reverse = data[RATED_BY]
            _keep(reverse, ~torch.isin(reverse.edge_index[1] * num_items + reverse.edge_index[0], key[mask]))
        return data

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}(ratio={self.ratio}, min_interactions={self.min_interactions}, '
                f'seed={self.seed})')


def _check(ratio: float, min_interactions: int) -> None:
    if not 0 < ratio < 1:
        raise ValueError(f"'ratio' must lie between 0 and 1, both excluded, got {ratio}")
    if min_interactions < 2:
        raise ValueError(f"'min_interactions' must be at least 2, so that a user keeps one, got {min_interactions}")


def _keep(store: EdgeStorage, mask: Tensor) -> None:
    """Filter everything that is stored per edge; label indices may have that length by chance."""
    names = [name for name in store.edge_attrs() if name not in _LABELS]
    for name in names:
        value = store[name]
        if isinstance(value, Tensor):
            store[name] = value[:, mask] if name == 'edge_index' else value[mask.to(value.device)]
        else:
            store[name] = [entry for entry, kept in zip(value, mask.tolist()) if kept]
    store.__dict__.pop('_cached_attr', None)  # PyG remembers which names are per edge; the length changed
