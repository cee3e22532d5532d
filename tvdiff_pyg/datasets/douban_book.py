"""Douban-Book, the split of the TV-Diff paper."""
from __future__ import annotations

from tvdiff_pyg.datasets.base import WHITESPACE_PAIRS, InteractionDataset


class DoubanBook(InteractionDataset):
    """The split of the TV-Diff paper; the checksums of its files are not known here.

    Takes the arguments, and raises the errors, of :class:`InteractionDataset`.
    """

    name = 'douban-book'
    url = 'https://raw.githubusercontent.com/umsimonchen/TV-Diff/HEAD/dataset/douban-book'
    files = {
        'train.txt': None,
        'test.txt': None,
    }
    options = WHITESPACE_PAIRS
