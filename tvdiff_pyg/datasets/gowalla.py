"""Gowalla, the public LightGCN split."""
from __future__ import annotations

from tvdiff_pyg.datasets.base import ADJACENCY, InteractionDataset


class Gowalla(InteractionDataset):
    """29,858 users x 40,981 places; the TV-Diff paper uses another split, see :class:`GowallaPaper`.

    Takes the arguments, and raises the errors, of :class:`InteractionDataset`.
    """

    name = 'gowalla'
    url = 'https://raw.githubusercontent.com/gusye1234/LightGCN-PyTorch/HEAD/data/gowalla'
    files = {
        'train.txt': '7244696fdeb23911319cf7b689f2e15a3c4c92549c873a5677b44e3f13cc3e62',
        'test.txt': '099a2a73924e4b754dc6efd730d764f492321b53c38eb93298850c83acf57be3',
    }
    options = ADJACENCY
