"""A user's own file of interactions."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, List, Optional

from torch_geometric.data import HeteroData, InMemoryDataset

from tvdiff_pyg.datasets.interactions import (
    PathLike,
    file_sha256,
    files_checksum,
    hold_out_pairs,
    interaction_data,
    read_interactions,
)


class InteractionFile(InMemoryDataset):
    """Interactions from text files in any layout that :func:`read_interactions` knows.

    Args:
        path: the training pairs, or all pairs.
        test_path: the test pairs; if omitted a seeded part of each user's pairs is held out.
        validation_path: the validation pairs, if there are any.
        test_ratio: the part held out where ``test_path`` is omitted; 0 for no test part.
        min_interactions: users with fewer distinct items give no test pairs.
        seed: seed of the hold-out.
        name: name of the data set; by default the file name without its ending.
        transform: applied to the graph at every access.
        **options: options of :func:`read_interactions`, the same for all files.

    Raises:
        DataError: a file is missing or malformed.
        ValueError: the options contradict each other, or ``test_ratio`` is out of range.
        TypeError: an option is unknown.
    """

    def __init__(self, path: PathLike, test_path: Optional[PathLike] = None,
                 validation_path: Optional[PathLike] = None, *, test_ratio: float = 0.2, min_interactions: int = 3,
                 seed: int = 0, name: Optional[str] = None,
                 transform: Optional[Callable[[HeteroData], HeteroData]] = None, **options: Any) -> None:
        super().__init__(None, transform)
        train = read_interactions(path, **options)
        test = None if test_path is None else read_interactions(test_path, **options)
        validation = None if validation_path is None else read_interactions(validation_path, **options)
        if test is None and test_ratio != 0:
            train, test = hold_out_pairs(train, test_ratio, min_interactions, seed)
        files: List[Path] = [Path(file) for file in (path, test_path, validation_path) if file is not None]
        checksum = files_checksum([(file.name, file_sha256(file)) for file in files])
        self.name = name or Path(path).stem
        self.data, self.slices = self.collate(
            [interaction_data(self.name, train, test, validation, checksum=checksum)])
