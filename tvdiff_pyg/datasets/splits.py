"""From interactions as they were read to the parts of a split (SPEC 12)."""
from __future__ import annotations

from collections import Counter
from itertools import compress
from typing import Dict, NamedTuple, Optional, Tuple

import numpy as np
import torch
from torch_geometric.data import HeteroData

from tvdiff_pyg.datasets.interactions import encode, interaction_data, ordered_ids
from tvdiff_pyg.datasets.records import DataError, Records, TextPairs
from tvdiff_pyg.transforms.hold_out import hold_out_mask
from tvdiff_pyg.transforms.k_core import k_core_mask
from tvdiff_pyg.transforms.split import TEST, TRAIN, VALIDATION, leave_one_out_parts, temporal_parts

SPLITS = ('ratio', 'leave-one-out', 'temporal')
TEST_RATIO = 0.2
_GONE = -1


class Parts(NamedTuple):
    """The pairs of a split as text, and the counts of what was dropped before it."""

    train: TextPairs
    validation: TextPairs
    test: TextPairs
    dropped: Dict[str, int]


def check_split(split: str, test_ratio: float = TEST_RATIO, k_core: Optional[int] = None, has_time: bool = False,
                has_test: bool = False, has_validation: bool = False) -> None:
    """Raise ``ValueError`` for options of a split that are out of range or that contradict each other.

    Args:
        split: one of ``ratio``, ``leave-one-out`` and ``temporal``.
        test_ratio: the part held out for the test.
        k_core: least degree, or ``None``.
        has_time: whether times are asked for.
        has_test: whether the test part is given.
        has_validation: whether the validation part is given.
    """
    if split not in SPLITS:
        raise ValueError(f"'split' must be one of {', '.join(SPLITS)}; got {split!r}")
    if not 0 <= test_ratio < 1:
        raise ValueError(f"'test_ratio' must lie between 0 and 1, 1 excluded, got {test_ratio}")
    if k_core is not None and k_core < 1:
        raise ValueError(f"'k_core' must be at least 1, got {k_core}")
    for option, asked in ((f"'split' {split}", split != 'ratio'), ("'k_core'", k_core is not None)):
        if asked and (has_test or has_validation):
            raise ValueError(f"{option} is for one file of all pairs; omit it, or 'test_path' and 'validation_path' "
                             f"(of a frame or an edge list, 'test' and 'validation')")
    if has_test and test_ratio != TEST_RATIO:
        raise ValueError("'test_ratio' is for one file of all pairs; omit it, or 'test_path' (of a frame or an edge "
                         "list, 'test')")
    if split == 'temporal' and not has_time:
        raise ValueError("'split' temporal needs times: name the 'time_column' (of an edge list, pass 'time')")
    if split == 'temporal' and test_ratio == 0:
        raise ValueError("'test_ratio' of a temporal split must be above 0")
    if split == 'leave-one-out' and test_ratio != TEST_RATIO:
        raise ValueError("'test_ratio' is not for a leave-one-out split, which takes one item a user; omit it")
    if split == 'ratio' and has_time:
        raise ValueError("'time_column' (of an edge list, 'time') is used only where 'split' is leave-one-out or "
                         "temporal; set one of them, or omit it")


def split_records(records: Records, split: str = 'ratio', test_ratio: float = TEST_RATIO, min_interactions: int = 3,
                  seed: int = 0, k_core: Optional[int] = None) -> Parts:
    """Filter interactions and split them, whatever their order; copies of a pair stay together, at its latest time.

    ``ratio`` holds out a seeded part of each user's items (:func:`~tvdiff_pyg.transforms.hold_out_mask`) for the
    test; ``leave-one-out`` each user's last item for the test and the one before it for validation
    (:func:`~tvdiff_pyg.transforms.leave_one_out_parts`), in a seeded random order where there are no times or equal
    ones; ``temporal`` what happens after a moment, and before it a tenth of the rest for validation
    (:func:`~tvdiff_pyg.transforms.temporal_parts`).

    Args:
        records: the interactions.
        split: ``ratio``, ``leave-one-out`` or ``temporal``.
        test_ratio: of ``ratio`` and ``temporal``: the part held out for the test; 0 for none, of ``ratio`` only.
        min_interactions: of ``ratio`` and ``leave-one-out``: users with fewer distinct items give none.
        seed: of ``ratio`` and ``leave-one-out``: seed of the choice.
        k_core: keep only the largest part in which all users and all items have at least so many pairs
            (:func:`~tvdiff_pyg.transforms.k_core_mask`), before anything is held out.

    Returns:
        The parts. ``dropped`` counts ``k_core_pairs`` (distinct ones), ``k_core_users`` and ``k_core_items``, where
        there is a ``k_core``, beside what was dropped in reading.

    Raises:
        DataError: the k-core is empty, or there are too few distinct times.
        ValueError: an option is out of range.
    """
    has_time = records.times is not None
    check_split(split, test_ratio, k_core, has_time)
    codes = [encode(ids, {value: code for code, value in enumerate(ordered_ids(ids))}) for ids in records.pairs]
    key, inverse = np.unique(codes[0] * (int(codes[1].max(initial=0)) + 1) + codes[1], return_inverse=True)
    user, item = np.divmod(key, int(codes[1].max(initial=0)) + 1)
    time = None
    if records.times is not None:
        time = np.zeros(key.size, dtype=np.int64)
        np.maximum.at(time, inverse, records.times)

    dropped = dict(records.dropped)
    kept = np.ones(key.size, dtype=bool)
    if k_core is not None:
        kept = k_core_mask(torch.from_numpy(user), torch.from_numpy(item), k_core).numpy()
        if not kept.any():
            raise DataError(f"'k_core' {k_core} leaves nothing of {key.size} pairs: no users and items have so many "
                            f"with each other; take a smaller one")
        dropped['k_core_pairs'] = int(key.size - kept.sum())
        for name, index in (('users', user), ('items', item)):
            dropped[f'k_core_{name}'] = int(np.unique(index).size - np.unique(index[kept]).size)

    user_index = torch.from_numpy(user[kept])
    moment = None if time is None else torch.from_numpy(time[kept])
    generator = torch.Generator().manual_seed(seed)
    part = np.full(key.size, _GONE)
    if split == 'leave-one-out':
        part[kept] = leave_one_out_parts(user_index, moment, min_interactions, generator).numpy()
    elif split == 'temporal':
        assert moment is not None  # check_split has seen to it
        try:
            part[kept] = temporal_parts(moment, test_ratio).numpy()
        except ValueError as error:
            raise DataError(f"'split' temporal: {error}") from error
    elif test_ratio == 0:
        part[kept] = TRAIN
    else:
        part[kept] = hold_out_mask(user_index, test_ratio, min_interactions, generator).numpy() * TEST
    part = part[inverse]

    def select(number: int) -> TextPairs:
        mask = (part == number).tolist()
        return list(compress(records.users, mask)), list(compress(records.items, mask))

    return Parts(select(TRAIN), select(VALIDATION), select(TEST), dropped)


def hold_out_pairs(pairs: TextPairs, ratio: float, min_interactions: int, seed: int) -> Tuple[TextPairs, TextPairs]:
    """Split pairs by :func:`~tvdiff_pyg.transforms.hold_out_mask`, whatever their order; copies stay together.

    Args:
        pairs: users and items as text.
        ratio: the part of each user's distinct items to hold out, between 0 and 1, 1 excluded.
        min_interactions: users with fewer distinct items give none.
        seed: seed of the choice.

    Returns:
        The pairs that stay and the pairs held out.

    Raises:
        ValueError: ``ratio`` or ``min_interactions`` is out of range.
    """
    parts = split_records(Records(*pairs), 'ratio', ratio, min_interactions, seed)
    return parts.train, parts.test


def split_data(name: str, records: Records, *, checksum: str, split: str, test_ratio: float, min_interactions: int,
               seed: int, k_core: Optional[int], test: Optional[Records] = None,
               validation: Optional[Records] = None) -> HeteroData:
    """Build the graph of interactions, of which those parts are held out here that are not given.

    Args:
        name: name of the data set.
        records: all interactions, but for those of the parts that are given.
        checksum: SHA-256 of what they were read from.
        split, test_ratio, min_interactions, seed, k_core: options of :func:`split_records`.
        test: a test part that is given.
        validation: a validation part that is given.

    Raises:
        DataError: the k-core is empty, or there are too few distinct times.
        ValueError: an option is out of range.
    """
    dropped: Counter[str] = Counter()
    for given in (records, test, validation):
        dropped.update(given.dropped if given is not None else {})
    validation_pairs = None if validation is None else validation.pairs
    if test is not None:
        return interaction_data(name, records.pairs, test.pairs, validation_pairs, checksum=checksum,
                                dropped_before=dropped)
    parts = split_records(records._replace(dropped=dropped), split, test_ratio, min_interactions, seed, k_core)
    return interaction_data(
        name, parts.train, None if split == 'ratio' and test_ratio == 0 else parts.test,
        validation_pairs if split == 'ratio' else parts.validation, checksum=checksum, dropped_before=parts.dropped)
