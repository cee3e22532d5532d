"""Yelp2018, the public LightGCN split."""
from __future__ import annotations

from tvdiff_pyg.datasets.base import ADJACENCY, InteractionDataset


class Yelp2018(InteractionDataset):
    """31,668 users x 38,048 businesses; the pairs are those of the TV-Diff paper.

    Takes the arguments, and raises the errors, of :class:`InteractionDataset`.
    """

    name = 'yelp2018'
    url = 'https://raw.githubusercontent.com/gusye1234/LightGCN-PyTorch/HEAD/data/yelp2018'
    files = {
        'train.txt': '1e9568725a9e833d0ac3bae01c94cd95367f73b3bb6104fd26b5f65ea5054093',
        'test.txt': '9cd9b37926cd1447a06625ffa7914527573fb097c10cb0bbdb1d1b8ded3742fe',
    }
    options = ADJACENCY
