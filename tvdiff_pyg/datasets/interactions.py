"""The one builder of interaction graphs."""
from __future__ import annotations

import math
import re
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from tvdiff_pyg.datasets.records import DataError, TextPairs
from tvdiff_pyg.transforms.edge_types import RATED_BY, RATES

OWN_FIELDS = ('item', 'score', 'held_out')
"""What lists say of an item beside its attributes."""
_CANONICAL_INT = re.compile(r'0|-?[1-9][0-9]{0,999}')


def interaction_data(
    name: str,
    train: TextPairs,
    test: Optional[TextPairs] = None,
    validation: Optional[TextPairs] = None,
    *,
    checksum: str,
    item_attributes: Optional[Mapping[str, Mapping[str, Any]]] = None,
    dropped_before: Optional[Mapping[str, int]] = None,
) -> HeteroData:
    """Build the interaction graph of a data set; its index space is the users and items of ``train``.

    Ids are numbered in numeric order if all of them are canonical integers, else in lexicographic order; edges are
    sorted by user and then by item, whatever the order of the file. Pairs that the protocol (SPEC 12) cannot rank
    are dropped and counted in ``data.dropped``.

    Args:
        name: name of the data set.
        train: the observed pairs, as ``edge_index`` of ``('user', 'rates', 'item')`` and, flipped, of
            ``('item', 'rated_by', 'user')``.
        test: held-out pairs, as ``edge_label_index``; not set if omitted.
        validation: held-out pairs, as ``val_edge_label_index``; not set if omitted.
        checksum: SHA-256 of the raw bytes, see :func:`files_checksum`.
        item_attributes: attribute name to a mapping from original item id to value: text, a number, ``None``, or a
            list or dict of these; becomes one list in item order for each, ``None`` where an item has no value, or NaN.
        dropped_before: counts of what was left out before, to be told in ``data.dropped`` as well.

    Returns:
        The graph, with ``user_id`` and ``item_id`` (original ids by index), ``item_attributes`` (lists by index),
        ``name``, ``checksum`` and ``dropped``.

    Raises:
        DataError: ``train`` is empty.
        ValueError: users and items of a part differ in length, or an attribute has a name of :data:`OWN_FIELDS`.
        TypeError: an id is not text, or an attribute is nothing that JSON has.
    """
    parts = {'train': train, 'validation': validation or ([], []), 'test': test or ([], [])}
    for part, (users, items) in parts.items():
        if len(users) != len(items):
            raise ValueError(f"'{part}' has {len(users)} users but {len(items)} items; they must pair up")
    check_attribute_names(item_attributes or {})
    if len(train[0]) == 0:
        raise DataError(f'{name}: the training part holds no interactions')

    user_ids, item_ids = ordered_ids(train[0]), ordered_ids(train[1])
    num_users, num_items = len(user_ids), len(item_ids)
    user_code = {user: index for index, user in enumerate(user_ids)}
    item_code = {item: index for index, item in enumerate(item_ids)}
    # Ids absent from train get codes above the index space, so that one comparison finds them.
    codes = {part: (encode(users, user_code), encode(items, item_code)) for part, (users, items) in parts.items()}
    width = len(item_code)
    keys = {part: _sorted_unique(user * width + item) for part, (user, item) in codes.items()}
    duplicates = sum(len(users) - keys[part].size for part, (users, _) in parts.items())

    seen = keys['train']
    dropped: Dict[str, int] = dict(dropped_before or {})
    for part in ('validation', 'test'):
        user, item = np.divmod(keys[part], width)
        absent = (user >= num_users) | (item >= num_items)
        known = keys[part][~absent]
        known_seen = _contains(seen, known)
        dropped[f'{part}_pairs'] = int(absent.sum())
        dropped[f'{part}_users'] = int(np.unique(user[user >= num_users]).size)
        dropped[f'{part}_items'] = int(np.unique(item[item >= num_items]).size)
        dropped[f'{part}_pairs_seen'] = int(known_seen.sum())
        keys[part] = known[~known_seen]
        seen = np.sort(np.concatenate([seen, keys[part]]), kind='stable')
    dropped['duplicate_pairs'] = duplicates
    assert bool((seen[1:] > seen[:-1]).all()), 'train, validation and test must be disjoint'

    data = HeteroData()
    data['user'].num_nodes = num_users
    data['item'].num_nodes = num_items
    # Text belongs to the graph and not to its nodes: PyG's samplers and subgraphs index whatever nodes hold.
    data.user_id, data.item_id = user_ids, item_ids
    data.item_attributes = {attribute: [_plain(attribute, values.get(item_id)) for item_id in item_ids]
                            for attribute, values in (item_attributes or {}).items()}
    data[RATES].edge_index = _edges(keys['train'], width)
    if test is not None:
        data[RATES].edge_label_index = _edges(keys['test'], width)
    if validation is not None:
        data[RATES].val_edge_label_index = _edges(keys['validation'], width)
    data[RATED_BY].edge_index = data[RATES].edge_index.flip([0])
    data.name = name
    data.checksum = checksum
    data.dropped = dropped
    return data


def check_attribute_names(names: Iterable[str]) -> None:
    """Raise ``ValueError`` for an attribute that would stand in the place of an item's id or score."""
    for name in names:
        if name in OWN_FIELDS:
            raise ValueError(f"'item_attributes' {name} has a name that lists use themselves "
                             f"({', '.join(OWN_FIELDS)}): rename it")


def _plain(attribute: str, value: Any) -> Any:
    """Return a value as JSON has it, numpy's scalars as Python's, and NaN as ``None``."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, (list, tuple)):
        return [_plain(attribute, entry) for entry in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(attribute, entry) for key, entry in value.items()}
    if value is None or isinstance(value, (str, int)) or isinstance(value, float) and math.isfinite(value):
        return value
    raise TypeError(f"'item_attributes' {attribute} holds {value!r} ({type(value).__name__}): convert it to text, a "
                    f"finite number, None, or a list of these")


def ordered_ids(ids: Sequence[str]) -> List[str]:
    """Return the distinct ids in numeric order if all are canonical integers, else in lexicographic order."""
    distinct = set(ids)
    for value in distinct:
        if not isinstance(value, str):
            raise TypeError(f'original ids must be text, got {value!r}; convert them with str()')
    if all(_CANONICAL_INT.fullmatch(value) for value in distinct):
        return sorted(distinct, key=int)
    return sorted(distinct)


def encode(ids: Sequence[str], code: Dict[str, int]) -> np.ndarray:
    """Return the ids as numbers; those that ``code`` lacks get the next ones in it."""
    for value in dict.fromkeys(ids):
        code.setdefault(value, len(code))
    return np.fromiter(map(code.__getitem__, ids), dtype=np.int64, count=len(ids))


def _sorted_unique(key: np.ndarray) -> np.ndarray:
    key = np.sort(key)
    return key[np.concatenate([[True], key[1:] != key[:-1]])] if key.size else key


def _contains(ordered: np.ndarray, key: np.ndarray) -> np.ndarray:
    position = np.searchsorted(ordered, key).clip(max=ordered.size - 1)
    return ordered[position] == key


def _edges(key: np.ndarray, width: int) -> Tensor:
    return torch.from_numpy(np.stack([key // width, key % width]))
