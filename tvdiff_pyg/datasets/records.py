"""Interactions as they were read, before they are a graph: ids as text, their rules, their checksums, their errors."""
from __future__ import annotations

import hashlib
import os
import re
import warnings
from pathlib import Path
from typing import Callable, Iterable, Mapping, NamedTuple, NoReturn, Optional, Sequence, Tuple, Union

import numpy as np

PathLike = Union[str, 'os.PathLike[str]']
TextPairs = Tuple[Sequence[str], Sequence[str]]
"""``(users, items)``: original ids as text, two sequences of one length."""
_MISSING = frozenset(('NULL', 'null', 'nan', 'NaN', 'NA', 'N/A', '<NA>', 'None', '\\N'))
DIGITS = re.compile(r'[0-9]+')


class Records(NamedTuple):
    """Interactions as they were read, copies of a pair included.

    Attributes:
        users, items: original ids as text, two sequences of one length.
        times: their order in time, ``[E]`` integers from 0, equal for equal times; ``None`` where it was not asked for.
        dropped: what was left out in reading: ``low_ratings``, where there is a ``min_rating``.
    """

    users: Sequence[str]
    items: Sequence[str]
    times: Optional[np.ndarray] = None
    dropped: Mapping[str, int] = {}

    @property
    def pairs(self) -> TextPairs:
        """The users and items."""
        return self.users, self.items


class DataError(ValueError):
    """Data that cannot be read, fetched or trusted; the message is one line and says the mend."""

    def __init__(self, message: str) -> None:
        super().__init__(re.sub(r'\s*[\r\n]+\s*', ' ', message))


def check_ids(values: Sequence[str], numeric_ids: bool, fail: Callable[[str, str], NoReturn], where: str) -> None:
    """Check ids, and warn of those that may stand for a missing one: they are kept, as one user or item.

    Args:
        values: the ids.
        numeric_ids: whether they must be numbers.
        fail: called with an id that is empty, or no number where it must be one, and the mend.
        where: what the warning calls them.
    """
    distinct = dict.fromkeys(values)
    found = [value for value in distinct if value in _MISSING]
    if found:
        counts = ' and '.join(f'{sum(value == other for other in values)} times {value!r}' for value in found)
        warnings.warn(f'{where}: the id is {counts}, which is taken for one of that name; where it stands for a '
                      f'missing id, remove these rows', stacklevel=2)
    for value in distinct:
        if not value.strip():
            fail(value, 'is an empty id; fill it in or remove the line')
        if numeric_ids and not DIGITS.fullmatch(value):
            negative = re.fullmatch(r'-[0-9]+', value)
            fail(value, f"is {'a negative' if negative else 'not a numeric'} id; "
                        f"ids here must be non-negative integers")


def read_bytes(path: Path, size: int = -1) -> bytes:
    """Return the first ``size`` bytes of a file, or all of them.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with path.open('rb') as file:
            return file.read(size)
    except FileNotFoundError as error:
        raise DataError(f'{path}: no such file; check the path') from error
    except OSError as error:
        raise DataError(f'{path}: cannot be read ({error.strerror}); pass a readable file') from error


def records_sha256(records: Records, test: Optional[Records] = None, validation: Optional[Records] = None) -> str:
    """Return a SHA-256 of interactions that come from no file: of their users, items and order in time, row by row.

    Args:
        records: the interactions.
        test, validation: parts that are given, which make it that of :func:`files_checksum` over the parts.
    """
    checksums = {}
    for name, part in (('train', records), ('test', test), ('validation', validation)):
        if part is not None:
            columns = [part.users, part.items, *([] if part.times is None else [part.times.tolist()])]
            checksums[name] = hashlib.sha256(''.join(f'{row!r}\n' for row in zip(*columns)).encode()).hexdigest()
    return files_checksum(checksums.items()) if len(checksums) > 1 else checksums['train']


def file_sha256(path: PathLike) -> str:
    """Return the SHA-256 of a file in hex.

    Args:
        path: the file.

    Raises:
        DataError: the file cannot be read.
    """
    return hashlib.sha256(read_bytes(Path(path))).hexdigest()


def files_checksum(files: Iterable[Tuple[str, str]]) -> str:
    """Return one SHA-256 for several files: that of the lines ``"<sha256>  <file name>"``, by file name.

    Args:
        files: pairs of file name and SHA-256 in hex.
    """
    lines = (f'{checksum}  {name}\n' for name, checksum in sorted(files))
    return hashlib.sha256(''.join(lines).encode()).hexdigest()
