"""A user's own interactions: from files, from a pandas DataFrame, from an edge list."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, List, Optional, Union

import numpy as np
from torch import Tensor
from torch_geometric.data import HeteroData, InMemoryDataset

from tvdiff_pyg.datasets.reading import edge_records, frame_records, read_records
from tvdiff_pyg.datasets.records import PathLike, Records, file_sha256, files_checksum, records_sha256
from tvdiff_pyg.datasets.splits import TEST_RATIO, check_split, split_data
from tvdiff_pyg.datasets.tables import Column

Transform = Callable[[HeteroData], HeteroData]


class InteractionFile(InMemoryDataset):
    """Interactions from text files in any layout that :func:`read_records` knows, or from Parquet files.

    Args:
        path: the training pairs, or all pairs.
        test_path: the test pairs; if omitted they are held out of the file, by ``split``.
        validation_path: the validation pairs, if there are any.
        split: ``ratio``, a seeded part of each user's items; ``leave-one-out``, each user's last item, and the one
            before it for validation, in a random order where there are no times; ``temporal``, what happens after a
            moment, and before it a tenth of the rest for validation, which needs ``time_column``.
        test_ratio: of ``ratio`` and ``temporal``: the part held out; 0, of ``ratio`` only, for no test part, which
            :func:`tvdiff_pyg.training.fit` refuses.
        min_interactions: users with fewer distinct items give no test pairs (``ratio``, ``leave-one-out``).
        seed: seed of what is random in the split.
        k_core: before splitting, keep only the largest part in which every user has at least so many items and every
            item so many users.
        name: name of the data set; by default the file name without its ending.
        transform: applied to the graph at every access.
        **options: options of :func:`read_records`, the same for all files.

    Raises:
        DataError: a file is missing or malformed, or nothing is left of it.
        ValueError: the options contradict each other, or one is out of range.
        TypeError: an option is unknown.
        ImportError: a file is a Parquet file, and pyarrow is not installed.
    """

    def __init__(self, path: PathLike, test_path: Optional[PathLike] = None,
                 validation_path: Optional[PathLike] = None, *, split: str = 'ratio', test_ratio: float = TEST_RATIO,
                 min_interactions: int = 3, seed: int = 0, k_core: Optional[int] = None, name: Optional[str] = None,
                 transform: Optional[Transform] = None, **options: Any) -> None:
        super().__init__(None, transform)
        check_split(split, test_ratio, k_core, options.get('time_column') is not None, test_path is not None,
                    validation_path is not None)
        records = read_records(path, **options)
        test = None if test_path is None else read_records(test_path, **options)
        validation = None if validation_path is None else read_records(validation_path, **options)
        files: List[Path] = [Path(file) for file in (path, test_path, validation_path) if file is not None]
        checksum = files_checksum([(file.name, file_sha256(file)) for file in files])
        self.name = name or Path(path).stem
        self.data, self.slices = self.collate([split_data(
            self.name, records, checksum=checksum, split=split, test_ratio=test_ratio,
            min_interactions=min_interactions, seed=seed, k_core=k_core, test=test, validation=validation)])


class InteractionFrame(InMemoryDataset):
    """Interactions from a pandas DataFrame, one a row. Ids are text or integers, which become text.

    ``checksum`` is that of the interactions that were read, in their order, and not of the other columns.

    Args:
        frame: the DataFrame of the training pairs, or of all pairs; it is not kept.
        test: a DataFrame of the test pairs; if omitted they are held out of ``frame``, by ``split``.
        validation: a DataFrame of the validation pairs, if there are any.
        user_column: name, or position from 0; by default the column with a common name, else the first. The columns
            are chosen alike in each DataFrame.
        item_column: likewise, else the second.
        rating_column: likewise.
        min_rating: keep only interactions with at least this rating.
        time_column: name, or position from 0; numbers, dates as text or ``datetime64``.
        split, test_ratio, min_interactions, seed, k_core: as in :class:`InteractionFile`.
        name: name of the data set.
        transform: applied to the graph at every access.

    Raises:
        DataError: a column is absent, an id or a value is missing or of no use, or nothing is left.
        ValueError: the options contradict each other, or one is out of range.
        TypeError: ``frame``, or a part, is no pandas DataFrame.
    """

    def __init__(self, frame: Any, *, test: Any = None, validation: Any = None, user_column: Optional[Column] = None,
                 item_column: Optional[Column] = None, rating_column: Optional[Column] = None,
                 min_rating: Optional[float] = None, time_column: Optional[Column] = None, split: str = 'ratio',
                 test_ratio: float = TEST_RATIO, min_interactions: int = 3, seed: int = 0,
                 k_core: Optional[int] = None, name: str = 'frame', transform: Optional[Transform] = None) -> None:
        super().__init__(None, transform)
        check_split(split, test_ratio, k_core, time_column is not None, test is not None, validation is not None)
        self.name = name

        def read(part: Any, argument: str) -> Records:
            return frame_records(part, name=name if argument == 'frame' else f'{name}, {argument}', argument=argument,
                                 user_column=user_column, item_column=item_column, rating_column=rating_column,
                                 min_rating=min_rating, time_column=time_column)

        parts = (read(frame, 'frame'), None if test is None else read(test, 'test'),
                 None if validation is None else read(validation, 'validation'))
        self.data, self.slices = self.collate([split_data(
            name, parts[0], checksum=records_sha256(*parts), split=split, test_ratio=test_ratio,
            min_interactions=min_interactions, seed=seed, k_core=k_core, test=parts[1], validation=parts[2])])


class InteractionEdges(InMemoryDataset):
    """Interactions from an edge list in PyG's form. Users and items that occur in train are numbered anew.

    Args:
        edge_index: users over items, integers ``[2, E]`` from 0, of the training pairs or of all pairs;
            ``data.user_id`` and ``data.item_id`` hold them as text.
        time: time of each edge, finite numbers ``[E]``.
        test: the test pairs ``[2, E']``; if omitted they are held out of ``edge_index``, by ``split``.
        validation: the validation pairs ``[2, E'']``, if there are any.
        split, test_ratio, min_interactions, seed, k_core: as in :class:`InteractionFile`.
        name: name of the data set.
        transform: applied to the graph at every access.

    Raises:
        DataError: there are no edges, or nothing is left of them.
        ValueError: a shape, a type or a number is wrong, the options contradict each other, or one is out of range.
    """

    def __init__(self, edge_index: Union[Tensor, np.ndarray], time: Union[Tensor, np.ndarray, None] = None, *,
                 test: Union[Tensor, np.ndarray, None] = None, validation: Union[Tensor, np.ndarray, None] = None,
                 split: str = 'ratio', test_ratio: float = TEST_RATIO, min_interactions: int = 3, seed: int = 0,
                 k_core: Optional[int] = None, name: str = 'edges', transform: Optional[Transform] = None) -> None:
        super().__init__(None, transform)
        check_split(split, test_ratio, k_core, time is not None, test is not None, validation is not None)
        self.name = name
        parts = (edge_records(edge_index, time), None if test is None else edge_records(test, argument='test'),
                 None if validation is None else edge_records(validation, argument='validation'))
        self.data, self.slices = self.collate([split_data(
            name, parts[0], checksum=records_sha256(*parts), split=split, test_ratio=test_ratio,
            min_interactions=min_interactions, seed=seed, k_core=k_core, test=parts[1], validation=parts[2])])
