"""LastFM, the split of the TV-Diff paper."""
from __future__ import annotations

from tvdiff_pyg.datasets.base import InteractionDataset


class LastFM(InteractionDataset):
    """1,887 users x 15,313 artists; 2,299 test pairs lie outside train and are dropped.

    Takes the arguments, and raises the errors, of :class:`InteractionDataset`.
    """

    name = 'lastfm'
    url = 'https://raw.githubusercontent.com/umsimonchen/TV-Diff/HEAD/dataset/lastfm'
    files = {
        'train.txt': '04b882a56004dd2037f68ebf64a6776e1dce5421ce2d85f7393c35b671c5a21a',
        'test.txt': 'aed9979560a3fa635067481523c967c637596b821377877b7034084333025f3b',
    }
