"""MovieLens-1M, the temporal split of DiffRec."""
from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from tvdiff_pyg.datasets.base import InteractionDataset, http_get
from tvdiff_pyg.datasets.records import DataError


class ML1M(InteractionDataset):
    """5,949 users x 2,810 films, with a validation part of its own.

    Upstream holds NumPy arrays; they are put in place as text, ``user TAB item``, sorted by user and then item.
    Takes the arguments, and raises the errors, of :class:`InteractionDataset`.
    """

    name = 'ml-1m'
    url = 'https://raw.githubusercontent.com/YiyanXu/DiffRec/HEAD/datasets/ml-1m_clean'
    files = {
        'train.txt': '7bf2aede469e65603c2f9365bc625fa6be7998ffaf3efc1ecde7d5e20fc52112',
        'valid.txt': 'fa42c6af758466aebd525133f99809b2dfdbcf52d912f037c79944dee52baa30',
        'test.txt': '0f398070ce419d0722cbdd26d458d5cba54ef19bcd68054d86d129ae85f6e8f9',
    }

    def address(self, file: str) -> str:
        """Return the URL of the array that ``file`` is made from."""
        return f"{self.url}/{file.replace('.txt', '_list.npy')}"

    def fetch(self, file: str, part: Path) -> bytes:
        """Return the pairs of the upstream array as text.

        Raises:
            DataError: the array cannot be had, or is not one of integers ``[n, 2]``.
        """
        url = self.address(file)
        try:
            pairs = np.load(io.BytesIO(http_get(url, part)), allow_pickle=False)
        except DataError:
            raise
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f'{url}: not a NumPy array ({error}); nothing was kept') from error
        if not isinstance(pairs, np.ndarray) or pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in 'iu':
            raise DataError(f'{url}: not an array of integers [n, 2]; nothing was kept')
        pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
        return ''.join(f'{user}\t{item}\n' for user, item in pairs.tolist()).encode()
