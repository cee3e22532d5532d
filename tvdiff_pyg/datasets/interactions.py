"""The one parser of interaction files and the one builder of interaction graphs."""
from __future__ import annotations

import csv
import hashlib
import io
import math
import os
import re
from datetime import date, datetime, timezone
from numbers import Integral
from operator import itemgetter
from pathlib import Path
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    NoReturn,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from tvdiff_pyg.transforms.edge_types import RATED_BY, RATES

PathLike = Union[str, 'os.PathLike[str]']
Column = Union[str, int]
LAYOUTS = ('auto', 'table', 'adjacency', 'pairs')
TextPairs = Tuple[Sequence[str], Sequence[str]]
"""``(users, items)``: original ids as text, two sequences of one length."""

# Compared without case, '_', '-', blanks and a ':type' suffix (RecBole's atomic files).
_USER_NAMES = frozenset('user userid uid username customer customerid reviewer reviewerid visitorid memberid'.split())
_ITEM_NAMES = frozenset('item itemid iid movie movieid product productid asin parentasin article articleid book bookid '
                        'isbn artist artistid track trackid song songid business businessid venueid poiid'.split())
_RATING_NAMES = frozenset('rating ratings score stars overall'.split())
_CANONICAL_INT = re.compile(r'0|-?[1-9][0-9]{0,999}')
_DIGITS = re.compile(r'[0-9]+')
_INTEGER = re.compile(r'[-+]?[0-9]{1,4000}')
_PARQUET = b'PAR1'


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


def read_interactions(path: PathLike, **options: Any) -> TextPairs:
    """Return the ``(users, items)`` of a file, two lists of one length: those of :func:`read_records`.

    Args:
        path: the file.
        **options: options of :func:`read_records`.

    Raises:
        DataError: the file is missing, empty, not UTF-8 or malformed, or holds no interactions.
        ValueError: the options contradict each other.
        ImportError: the file is a Parquet file, and pyarrow is not installed.
    """
    return read_records(path, **options).pairs


def read_records(
    path: PathLike,
    *,
    layout: str = 'auto',
    separator: Optional[str] = None,
    header: Optional[bool] = None,
    user_column: Optional[Column] = None,
    item_column: Optional[Column] = None,
    rating_column: Optional[Column] = None,
    min_rating: Optional[float] = None,
    time_column: Optional[Column] = None,
    numeric_ids: bool = False,
) -> Records:
    """Read interactions from a UTF-8 text file or a Parquet file, ids kept as the text they are, in file order.

    A ``'table'`` holds one interaction a line, its fields separated by one character and quoted as in CSV. An
    ``'adjacency'`` file holds one user a line, ``user item item ...``, separated by white space; a user may have
    no items. ``'pairs'`` are lines ``user item ...`` separated by white space, of which the first two fields count.
    ``'auto'`` takes a file for a table where one of the options below is given or its first line holds
    a tab, comma, semicolon or bar, else for adjacency. A Parquet file is a table that knows its own header; it is
    recognised by its first bytes, whatever its name.

    Args:
        path: the file.
        layout: ``'auto'``, ``'table'``, ``'adjacency'`` or ``'pairs'``.
        separator: one character; guessed from the first line if omitted.
        header: whether the first line names the columns; if omitted it does where a column is given by name, where
            it holds a common name of a user column, or those of an item and a rating column, or where the second
            line holds numeric ids and the first holds none.
        user_column: name, or position from 0; by default the column with a common name, else the first.
        item_column: likewise, else the second.
        rating_column: likewise; no default where the file has no header.
        min_rating: keep only interactions with at least this rating; of the copies of a pair, those that have it.
        time_column: name, or position from 0; never guessed. Times are all finite numbers or all ISO 8601 dates
            (UTC where they name no zone).
        numeric_ids: require ids to be non-negative integers.

    Returns:
        The interactions, with times where ``time_column`` is given.

    Raises:
        DataError: the file is missing, empty, not UTF-8 or malformed, or holds no interactions.
        ValueError: the options contradict each other.
        ImportError: the file is a Parquet file, and pyarrow is not installed.
    """
    path = Path(path)
    text_options = (separator, header)
    columns = (user_column, item_column, rating_column, min_rating, time_column)
    has_table_options = any(option is not None for option in (*text_options, *columns))
    if layout not in LAYOUTS:
        raise ValueError(f"'layout' must be one of {', '.join(LAYOUTS)}; got {layout!r}")
    if layout in ('adjacency', 'pairs') and has_table_options:
        raise ValueError(f"'layout' {layout} knows no separator, header, columns, ratings or times; omit them")
    if separator is not None and len(separator) != 1:
        raise ValueError(f"'separator' must be one character, got {separator!r}")
    _check_rating_options(rating_column, min_rating)

    if _read_bytes(path, len(_PARQUET)) == _PARQUET:
        if layout in ('adjacency', 'pairs') or any(option is not None for option in text_options):
            raise ValueError(f"{path} is a Parquet file, which knows its own layout; omit 'layout', 'separator' and "
                             f"'header'")
        return _Parquet(path).records(*columns, numeric_ids)
    text = _read_text(path)
    first_line = next(line for line in io.StringIO(text, newline=None) if line.strip())
    guess = next((mark for mark in '\t,;|' if mark in first_line), None)
    if layout == 'adjacency' or (layout == 'auto' and guess is None and not has_table_options):
        return Records(*_read_adjacency(path, text, numeric_ids))
    if layout == 'pairs':
        return Records(*_read_pairs(path, text, numeric_ids))
    table = _Text(path, text, separator or guess or ' ')
    table.set_header(header, user_column, item_column, rating_column, time_column)
    return table.records(*columns, numeric_ids)


def frame_records(
    frame: Any,
    *,
    name: str = 'frame',
    user_column: Optional[Column] = None,
    item_column: Optional[Column] = None,
    rating_column: Optional[Column] = None,
    min_rating: Optional[float] = None,
    time_column: Optional[Column] = None,
) -> Records:
    """Read interactions from a pandas DataFrame, one a row; columns are chosen as in :func:`read_records`.

    Args:
        frame: the DataFrame; ids are text or integers, which become text. Its index is not read.
        name: what errors call it.
        user_column, item_column, rating_column, min_rating, time_column: as in :func:`read_records`; a time may be a
            ``datetime64`` as well.

    Raises:
        DataError: a column is absent, an id or a value is missing or of no use, or there are no interactions.
        ValueError: the options contradict each other.
        TypeError: ``frame`` is no pandas DataFrame.
    """
    _check_rating_options(rating_column, min_rating)
    if not hasattr(frame, 'iloc') or not hasattr(frame, 'columns'):
        raise TypeError(f"'frame' must be a pandas DataFrame, got {type(frame).__name__}; convert it, with to_pandas() "
                        f"say, or pass edges to InteractionEdges")
    return _Frame(name, frame).records(user_column, item_column, rating_column, min_rating, time_column, False)


def edge_records(edge_index: Union[Tensor, np.ndarray], time: Union[Tensor, np.ndarray, None] = None) -> Records:
    """Take interactions from an edge list; the numbers become ids as text.

    Args:
        edge_index: users over items, integers ``[2, E]`` from 0.
        time: time of each, finite numbers ``[E]``.

    Raises:
        ValueError: a shape, a type or a number is wrong.
        DataError: there are no edges.
    """
    edges = _array(edge_index)
    if edges.ndim != 2 or edges.shape[0] != 2 or edges.dtype.kind not in 'iu':
        raise ValueError(f"'edge_index' must hold integers [2, E], users over items; got {edges.dtype} "
                         f"{list(edges.shape)}")
    if edges.size == 0:
        raise DataError("'edge_index': no interactions")
    if int(edges.min()) < 0:
        raise ValueError(f"'edge_index' must hold integers from 0, got {int(edges.min())}")
    times = None
    if time is not None:
        values = _array(time)
        if values.shape != edges.shape[1:] or values.dtype.kind not in 'iuf' or not np.isfinite(values).all():
            raise ValueError(f"'time' must hold finite numbers [{edges.shape[1]}], one an edge; got {values.dtype} "
                             f"{list(values.shape)}{', not all finite' if values.dtype.kind == 'f' else ''}")
        times = np.unique(values, return_inverse=True)[1]
    return Records(list(map(str, edges[0].tolist())), list(map(str, edges[1].tolist())), times)


def interaction_data(
    name: str,
    train: TextPairs,
    test: Optional[TextPairs] = None,
    validation: Optional[TextPairs] = None,
    *,
    checksum: str,
    item_attributes: Optional[Mapping[str, Mapping[str, Any]]] = None,
    dropped_before: Optional[Mapping[str, int]] = None,
) -> HeteroData:
    """Build the interaction graph of a data set; its index space is the users and items of ``train``.

    Ids are numbered in numeric order if all of them are canonical integers, else in lexicographic order; edges are
    sorted by user and then by item, whatever the order of the file. Pairs that the protocol (SPEC 12) cannot rank
    are dropped and counted in ``data.dropped``.

    Args:
        name: name of the data set.
        train: the observed pairs, as ``edge_index`` of ``('user', 'rates', 'item')`` and, flipped, of
            ``('item', 'rated_by', 'user')``.
        test: held-out pairs, as ``edge_label_index``; not set if omitted.
        validation: held-out pairs, as ``val_edge_label_index``; not set if omitted.
        checksum: SHA-256 of the raw bytes, see :func:`files_checksum`.
        item_attributes: attribute name to a mapping from original item id to value; becomes one list in item
            order for each, ``None`` where an item has no value.
        dropped_before: counts of what was left out before, to be told in ``data.dropped`` as well.

    Returns:
        The graph, with ``user_id`` and ``item_id`` (original ids by index), ``item_attributes`` (lists by index),
        ``name``, ``checksum`` and ``dropped``.

    Raises:
        DataError: ``train`` is empty.
        ValueError: users and items of a part differ in length.
        TypeError: an id is not text.
    """
    parts = {'train': train, 'validation': validation or ([], []), 'test': test or ([], [])}
    for part, (users, items) in parts.items():
        if len(users) != len(items):
            raise ValueError(f"'{part}' has {len(users)} users but {len(items)} items; they must pair up")
    if len(train[0]) == 0:
        raise DataError(f'{name}: the training part holds no interactions')

    user_ids, item_ids = ordered_ids(train[0]), ordered_ids(train[1])
    num_users, num_items = len(user_ids), len(item_ids)
    user_code = {user: index for index, user in enumerate(user_ids)}
    item_code = {item: index for index, item in enumerate(item_ids)}
    # Ids absent from train get codes above the index space, so that one comparison finds them.
    codes = {part: (encode(users, user_code), encode(items, item_code)) for part, (users, items) in parts.items()}
    width = len(item_code)
    keys = {part: _sorted_unique(user * width + item) for part, (user, item) in codes.items()}
    duplicates = sum(len(users) - keys[part].size for part, (users, _) in parts.items())

    seen = keys['train']
    dropped: Dict[str, int] = dict(dropped_before or {})
    for part in ('validation', 'test'):
        user, item = np.divmod(keys[part], width)
        absent = (user >= num_users) | (item >= num_items)
        known = keys[part][~absent]
        known_seen = _contains(seen, known)
        dropped[f'{part}_pairs'] = int(absent.sum())
        dropped[f'{part}_users'] = int(np.unique(user[user >= num_users]).size)
        dropped[f'{part}_items'] = int(np.unique(item[item >= num_items]).size)
        dropped[f'{part}_pairs_seen'] = int(known_seen.sum())
        keys[part] = known[~known_seen]
        seen = np.sort(np.concatenate([seen, keys[part]]), kind='stable')
    dropped['duplicate_pairs'] = duplicates
    assert bool((seen[1:] > seen[:-1]).all()), 'train, validation and test must be disjoint'

    data = HeteroData()
    data['user'].num_nodes = num_users
    data['item'].num_nodes = num_items
    # Text belongs to the graph and not to its nodes: PyG's samplers and subgraphs index whatever nodes hold.
    data.user_id, data.item_id = user_ids, item_ids
    data.item_attributes = {attribute: [values.get(item_id) for item_id in item_ids]
                            for attribute, values in (item_attributes or {}).items()}
    data[RATES].edge_index = _edges(keys['train'], width)
    if test is not None:
        data[RATES].edge_label_index = _edges(keys['test'], width)
    if validation is not None:
        data[RATES].val_edge_label_index = _edges(keys['validation'], width)
    data[RATED_BY].edge_index = data[RATES].edge_index.flip([0])
    data.name = name
    data.checksum = checksum
    data.dropped = dropped
    return data


def records_sha256(records: Records) -> str:
    """Return a SHA-256 of interactions that come from no file: of their users, items and order in time, row by row.

    Args:
        records: the interactions.
    """
    columns = [records.users, records.items, *([] if records.times is None else [records.times.tolist()])]
    return hashlib.sha256(''.join(f'{row!r}\n' for row in zip(*columns)).encode()).hexdigest()


def file_sha256(path: PathLike) -> str:
    """Return the SHA-256 of a file in hex.

    Args:
        path: the file.

    Raises:
        DataError: the file cannot be read.
    """
    return hashlib.sha256(_read_bytes(Path(path))).hexdigest()


def files_checksum(files: Iterable[Tuple[str, str]]) -> str:
    """Return one SHA-256 for several files: that of the lines ``"<sha256>  <file name>"``, by file name.

    Args:
        files: pairs of file name and SHA-256 in hex.
    """
    lines = (f'{checksum}  {name}\n' for name, checksum in sorted(files))
    return hashlib.sha256(''.join(lines).encode()).hexdigest()


class _Table:
    """Rows with named or numbered columns; what text, Parquet and frames have in common.

    Attributes:
        where: what errors call it.
        names: the names of the columns, if they have names.
        first: the first row or the names, for errors.
    """

    where: str
    names: Optional[List[str]]
    first: List[str]

    def fetch(self, *positions: int) -> List[List[Any]]:
        """Return the values of some columns."""
        raise NotImplementedError

    def ids(self, values: List[Any], position: int, numeric_ids: bool) -> List[str]:
        """Return a column's values as text."""
        _check_ids(values, numeric_ids, lambda bad, mend: self.fail(position, bad, mend))
        return values

    def fail(self, position: int, value: Any, mend: str) -> NoReturn:
        """Say where in a column a value stands that is of no use."""
        raise NotImplementedError

    def records(self, user_column: Optional[Column], item_column: Optional[Column], rating_column: Optional[Column],
                min_rating: Optional[float], time_column: Optional[Column], numeric_ids: bool) -> Records:
        user = self.column('user_column', user_column, _USER_NAMES)
        item = self.column('item_column', item_column, _ITEM_NAMES)
        if (user is None and item is None) or self.names is None:
            user, item = 0 if user is None else user, 1 if item is None else item
        if user is None or item is None:
            raise DataError(f"{self.where}: none of the columns {_listing(self.first)} has a common name for "
                            f"{'users' if user is None else 'items'}; "
                            f"set '{'user_column' if user is None else 'item_column'}'")
        if user == item:
            raise DataError(f"{self.where}: users and items cannot both come from column {user}; "
                            f"set 'user_column' and 'item_column'")
        rating = None
        if min_rating is not None:
            rating = self.column('rating_column', rating_column, _RATING_NAMES)
            if rating is None:
                raise DataError(f"{self.where}: 'min_rating' needs a column of ratings, none of "
                                f"{_listing(self.first)} has a common name for one; set 'rating_column'")
        time = self.column('time_column', time_column, ())
        values = dict(zip(('user', 'item', *(['rating'] if rating is not None else []),
                           *(['time'] if time is not None else [])),
                          self.fetch(*(column for column in (user, item, rating, time) if column is not None))))

        users, items = self.ids(values['user'], user, numeric_ids), self.ids(values['item'], item, numeric_ids)
        times = None if time is None else self.times(values['time'], time)
        dropped: Dict[str, int] = {}
        if rating is not None and min_rating is not None:
            good = self.ratings(values['rating'], rating, min_rating)
            dropped['low_ratings'] = len(good) - sum(good)
            users = [user for user, kept in zip(users, good) if kept]
            items = [item for item, kept in zip(items, good) if kept]
            times = None if times is None else times[np.array(good, dtype=bool)]
        if not users:
            limit = '' if min_rating is None else f' with a rating of at least {min_rating:g}'
            raise DataError(f'{self.where}: no interactions{limit}')
        return Records(users, items, times, dropped)

    def column(self, option: str, column: Optional[Column], common: Iterable[str]) -> Optional[int]:
        if isinstance(column, str):
            if self.names is None:
                raise ValueError(f"{option}={column!r} needs a header; give a position, or set 'header' to true")
            stripped = [name.strip() for name in self.names]
            if column.strip() not in stripped:
                raise DataError(f"{self.where}: no column {column!r}; "
                                f"the columns are {_listing(self.names)}; set '{option}'")
            return stripped.index(column.strip())
        if column is not None:
            if not 0 <= column < len(self.first):
                raise DataError(f"{self.where}: no column {column}; there are columns 0 to {len(self.first) - 1}; "
                                f"set '{option}'")
            return column
        return next((index for index, name in enumerate(self.names or []) if _plain(name) in common), None)

    def ratings(self, values: List[Any], position: int, min_rating: float) -> List[bool]:
        passes: Dict[Any, bool] = {}
        for value in dict.fromkeys(values):
            try:
                number = float(value)
            except (ValueError, TypeError):
                number = math.nan
            if not math.isfinite(number):
                self.fail(position, value, 'is not a rating; it must be a finite number')
            passes[value] = number >= min_rating
        return [passes[value] for value in values]

    def times(self, values: List[Any], position: int) -> np.ndarray:
        moments: Dict[Any, Union[int, float, datetime]] = {}
        kinds: Dict[bool, Any] = {}
        for value in dict.fromkeys(values):
            moment = _moment(value)
            if moment is None:
                self.fail(position, value, 'is not a time; it must be a finite number, or a date like '
                                           '2024-05-31 or 2024-05-31T18:30:00')
            kinds.setdefault(isinstance(moment, datetime), value)
            if len(kinds) > 1:
                self.fail(position, value, f'is not a time of the kind of {kinds[not isinstance(moment, datetime)]!r}; '
                                           f'times must be all numbers or all dates')
            moments[value] = moment
        # Their order is all that splits need, and integers, floats and dates each have an exact one.
        rank = {moment: index for index, moment in enumerate(sorted(set(moments.values())))}
        ranks = {value: rank[moment] for value, moment in moments.items()}
        return np.fromiter(map(ranks.__getitem__, values), dtype=np.int64, count=len(values))


class _Text(_Table):
    """A separated file whose rows can be gone through twice: once fast, once more to say which line is wrong."""

    def __init__(self, path: Path, text: str, separator: str) -> None:
        self.where = str(path)
        self.text = text
        self.separator = separator

    def rows(self) -> Iterator[List[str]]:
        return (row for _, row in self.numbered_rows())

    def numbered_rows(self) -> Iterator[Tuple[int, List[str]]]:
        reader = csv.reader(io.StringIO(self.text, newline=''), delimiter=self.separator, strict=True,
                            skipinitialspace=self.separator != ' ')
        try:
            for row in reader:
                if row:
                    yield reader.line_num, row
        except csv.Error as error:
            raise DataError(f'{self.where}, line {reader.line_num}: {error}; '
                            f'check the quotes and the separator ({self.separator!r})') from error

    def set_header(self, header: Optional[bool], user_column: Optional[Column], item_column: Optional[Column],
                   *more_columns: Optional[Column]) -> None:
        start = self.rows()
        self.first, second = next(start, []), next(start, [])
        if len(self.first) < 2:
            self.fail_short(2)
        if header is None:
            header = (any(isinstance(column, str) for column in (user_column, item_column, *more_columns))
                      or any(_plain(field) in _USER_NAMES for field in self.first)
                      or sum(_plain(field) in _ITEM_NAMES | _RATING_NAMES for field in self.first) > 1
                      or _names_numbers(self.first, second, user_column, item_column))
        self.names = self.first if header else None

    def body(self) -> Iterator[Tuple[int, List[str]]]:
        rows = self.numbered_rows()
        if self.names is not None:
            next(rows)
        return rows

    def fetch(self, *positions: int) -> List[List[Any]]:
        try:
            fields = list(map(itemgetter(*positions), map(itemgetter(1), self.body())))
        except IndexError:
            self.fail_short(max(positions) + 1)
        return [[field[index] for field in fields] for index in range(len(positions))]

    def fail(self, position: int, value: Any, mend: str) -> NoReturn:
        line = next(line for line, row in self.body() if row[position] == value)
        hint = "; set 'header' to true if this line names the columns" if line == 1 else ''
        raise DataError(f'{self.where}, line {line}: {value!r} {mend}{hint}')

    def fail_short(self, width: int) -> NoReturn:
        line, row = next((line, row) for line, row in self.numbered_rows() if len(row) < width)
        found = 'one column' if len(row) == 1 else f'{len(row)} columns'
        raise DataError(f'{self.where}, line {line}: {found} where at least {width} are needed; columns are taken to '
                        f"be separated by {self.separator!r}, set 'separator' or 'layout' if they are not")


class _Typed(_Table):
    """Columns of Python values, ``None`` where one is missing."""

    def __init__(self, where: str, names: List[str]) -> None:
        self.where = where
        self.names = self.first = names
        if len(names) < 2:
            raise DataError(f'{where}: {len(names)} columns where at least 2 are needed')

    def values(self, position: int) -> List[Any]:
        """Return the values of a column; dates and times in any form that :func:`_moment` reads."""
        raise NotImplementedError

    def fetch(self, *positions: int) -> List[List[Any]]:
        columns = [self.values(position) for position in positions]
        for position, values in zip(positions, columns):
            for kind in set(map(type, values)):
                if kind.__hash__ is None:
                    self.fail(position, next(value for value in values if type(value) is kind),
                              'is neither text nor a number')
        return columns

    def ids(self, values: List[Any], position: int, numeric_ids: bool) -> List[str]:
        kinds = set(map(type, values))
        if type(None) in kinds:  # told first: pandas makes floats of integers of which one is missing
            self.fail(position, None, 'is an empty id; fill it in or remove the row')
        for kind in kinds:
            if not issubclass(kind, (str, Integral)) or issubclass(kind, bool):
                self.fail(position, next(value for value in values if type(value) is kind),
                          "is not an id; ids are text or integers, convert the column, with astype('int64') say")
        return super().ids([value if type(value) is str else str(value) for value in values], position, numeric_ids)

    def fail(self, position: int, value: Any, mend: str) -> NoReturn:
        row = next(row for row, other in enumerate(self.values(position)) if other is value or str(other) == str(value))
        raise DataError(f'{self.where}, column {self.first[position]!r}, row {row} (from 0): {value!r} {mend}')


class _Frame(_Typed):
    """A pandas DataFrame, which it does not take pandas to read."""

    def __init__(self, name: str, frame: Any) -> None:
        super().__init__(name, [str(column) for column in frame.columns])
        self.frame = frame

    def values(self, position: int) -> List[Any]:
        column = self.frame.iloc[:, position]
        missing = np.flatnonzero(np.asarray(column.isna()))
        # Nanoseconds, or whatever the unit is: datetime objects would hold microseconds only.
        whole = column.dtype.kind == 'M' and missing.size == 0
        values: List[Any] = (column.astype('int64') if whole else column).tolist()
        for row in missing:
            values[row] = None
        return values


class _Parquet(_Typed):
    """A Parquet file, of which only the columns that count are read."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise ImportError(f"{path} is a Parquet file, which needs pyarrow: pip install 'tvdiff-pyg[parquet]'"
                              ) from error
        self.errors = (pyarrow.ArrowException, OSError)
        self.int64 = pyarrow.int64()
        self.is_timestamp = pyarrow.types.is_timestamp
        try:
            self.file = pyarrow.parquet.ParquetFile(path)
        except self.errors as error:
            raise self.broken(path, error) from error
        super().__init__(str(path), list(self.file.schema_arrow.names))

    @staticmethod
    def broken(path: PathLike, error: Exception) -> DataError:
        return DataError(f'{path}: cannot be read as a Parquet file ({error}); write it anew')

    def values(self, position: int) -> List[Any]:
        try:
            column = self.file.read([self.first[position]]).column(0)
            # Nanoseconds, or whatever the unit is: datetime objects would hold microseconds only.
            if self.is_timestamp(column.type):
                column = column.cast(self.int64)
            values: List[Any] = column.to_pylist()
        except self.errors as error:
            raise self.broken(self.where, error) from error
        return values


def _moment(value: Any) -> Union[int, float, datetime, None]:
    """Return a time as a number or a date with its zone, or ``None`` if it is none."""
    if isinstance(value, Integral):
        return int(value)
    text = value.isoformat() if isinstance(value, date) else str(value).strip()
    if _INTEGER.fullmatch(text):
        return int(text)
    try:
        number = float(text)
        return number if math.isfinite(number) else None
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)


def _check_rating_options(rating_column: Optional[Column], min_rating: Optional[float]) -> None:
    if rating_column is not None and min_rating is None:
        raise ValueError("'rating_column' is used only with 'min_rating'; pass both")
    if min_rating is not None and not math.isfinite(min_rating):
        raise ValueError(f"'min_rating' must be a finite number, got {min_rating}")


def _array(values: Union[Tensor, np.ndarray]) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _read_adjacency(path: Path, text: str, numeric_ids: bool) -> TextPairs:
    users: List[str] = []
    items: List[str] = []
    line_of: Dict[str, int] = {}
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        tokens = line.split()
        if not tokens:
            continue
        user = tokens[0]
        if user in line_of:
            raise DataError(f"{path}, line {number}: user {user!r} already has line {line_of[user]}; put all items of "
                            f"a user on one line, or set 'layout' to pairs if each line is one pair")
        line_of[user] = number
        users += [user] * (len(tokens) - 1)
        items += tokens[1:]

    def fail(bad: str, mend: str) -> NoReturn:
        lines = enumerate(io.StringIO(text, newline=None), start=1)
        number = next(number for number, line in lines if bad in line.split())
        raise DataError(f'{path}, line {number}: {bad!r} {mend}')

    _check_ids(list(line_of), numeric_ids, fail)
    _check_ids(items, numeric_ids, fail)
    if not items:
        raise DataError(f"{path}: no interactions, every line has one column; "
                        f"expected 'user item item ...' or one pair a line")
    return users, items


def _read_pairs(path: Path, text: str, numeric_ids: bool) -> TextPairs:
    rows = [(number, line.split()) for number, line in enumerate(io.StringIO(text, newline=None), start=1)
            if line.strip()]
    for number, fields in rows:
        if len(fields) < 2:
            raise DataError(f'{path}, line {number}: one column where at least 2 are needed, separated by white space')
    for column in (0, 1):
        def fail(bad: str, mend: str) -> NoReturn:
            line = next(number for number, fields in rows if fields[column] == bad)
            raise DataError(f'{path}, line {line}: {bad!r} {mend}')

        _check_ids([fields[column] for _, fields in rows], numeric_ids, fail)
    return [fields[0] for _, fields in rows], [fields[1] for _, fields in rows]


def _check_ids(values: Sequence[str], numeric_ids: bool, fail: Callable[[str, str], NoReturn]) -> None:
    for value in dict.fromkeys(values):
        if not value.strip():
            fail(value, 'is an empty id; fill it in or remove the line')
        if numeric_ids and not _DIGITS.fullmatch(value):
            negative = re.fullmatch(r'-[0-9]+', value)
            fail(value, f"is {'a negative' if negative else 'not a numeric'} id; "
                        f"ids here must be non-negative integers")


def _names_numbers(first: List[str], second: List[str], *columns: Optional[Column]) -> bool:
    """Tell whether the second row has numeric ids and the first has none, so that it names them."""
    positions = [default if column is None else column for default, column in enumerate(columns)]
    if any(not isinstance(position, int) or position >= len(second) for position in positions):
        return False
    return all(_DIGITS.fullmatch(second[position]) and not re.fullmatch(r'[-+]?[0-9.]*', first[position].strip())
               for position in positions if isinstance(position, int) and position < len(first))


def _listing(names: Sequence[str]) -> str:
    return ', '.join(repr(name) for name in names)


def _plain(name: str) -> str:
    return re.sub(r'[-_\s]', '', name.split(':')[0]).casefold()


def _read_bytes(path: Path, size: int = -1) -> bytes:
    try:
        with path.open('rb') as file:
            return file.read(size)
    except FileNotFoundError as error:
        raise DataError(f'{path}: no such file; check the path') from error
    except OSError as error:
        raise DataError(f'{path}: cannot be read ({error.strerror}); pass a readable file') from error


def _read_text(path: Path) -> str:
    content = _read_bytes(path)
    if content[:2] == b'\x1f\x8b':
        raise DataError(f'{path}: packed with gzip; unpack it first, with gunzip say')
    try:
        text = content.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        line = content.count(b'\n', 0, error.start) + 1
        raise DataError(f'{path}, line {line}: not UTF-8; convert the file, with iconv say') from error
    if not text.strip():
        raise DataError(f'{path}: the file is empty')
    return text


def ordered_ids(ids: Sequence[str]) -> List[str]:
    """Return the distinct ids in numeric order if all are canonical integers, else in lexicographic order."""
    distinct = set(ids)
    for value in distinct:
        if not isinstance(value, str):
            raise TypeError(f'original ids must be text, got {value!r}; convert them with str()')
    if all(_CANONICAL_INT.fullmatch(value) for value in distinct):
        return sorted(distinct, key=int)
    return sorted(distinct)


def encode(ids: Sequence[str], code: Dict[str, int]) -> np.ndarray:
    """Return the ids as numbers; those that ``code`` lacks get the next ones in it."""
    for value in dict.fromkeys(ids):
        code.setdefault(value, len(code))
    return np.fromiter(map(code.__getitem__, ids), dtype=np.int64, count=len(ids))


def _sorted_unique(key: np.ndarray) -> np.ndarray:
    key = np.sort(key)
    return key[np.concatenate([[True], key[1:] != key[:-1]])] if key.size else key


def _contains(ordered: np.ndarray, key: np.ndarray) -> np.ndarray:
    position = np.searchsorted(ordered, key).clip(max=ordered.size - 1)
    return ordered[position] == key


def _edges(key: np.ndarray, width: int) -> Tensor:
    return torch.from_numpy(np.stack([key // width, key % width]))
