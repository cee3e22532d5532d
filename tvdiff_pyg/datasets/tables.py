"""Tables of interactions: rows with named or numbered columns, from text, Parquet and frames."""
from __future__ import annotations

import csv
import io
import math
import re
from datetime import date, datetime, timezone
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, NoReturn, Optional, Sequence, Tuple, Union

import numpy as np

from tvdiff_pyg.datasets.records import DIGITS, DataError, PathLike, Records, check_ids

Column = Union[str, int]

# Compared without case, '_', '-', blanks and a ':type' suffix (RecBole's atomic files).
_USER_NAMES = frozenset('user userid uid username customer customerid reviewer reviewerid visitorid memberid'.split())
_ITEM_NAMES = frozenset('item itemid iid movie movieid product productid asin parentasin article articleid book bookid '
                        'isbn artist artistid track trackid song songid business businessid venueid poiid'.split())
_RATING_NAMES = frozenset('rating ratings score stars overall'.split())
_FIRST_ROWS = 10
_PIECE = 2 ** 20  # characters of a text whose lines are made at a time
_INTEGER = re.compile(r'[-+]?[0-9]{1,4000}')


class Table:
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
        check_ids(values, numeric_ids, lambda bad, mend: self.fail(position, bad, mend),
                  f'{self.where}, column {position if self.names is None else repr(self.names[position])}')
        return values

    def fail(self, position: int, value: Any, mend: str) -> NoReturn:
        """Say where in a column a value stands that is of no use."""
        raise NotImplementedError

    def records(self, user_column: Optional[Column], item_column: Optional[Column], rating_column: Optional[Column],
                min_rating: Optional[float], time_column: Optional[Column], numeric_ids: bool) -> Records:
        """Return the interactions of the chosen columns."""
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


class TextTable(Table):
    """A separated file whose rows can be gone through twice: once fast, once more to say which line is wrong."""

    def __init__(self, path: Path, text: str, separator: str) -> None:
        self.where = str(path)
        self.text = _without_blanks(text, separator)
        self.separator = separator

    def rows(self) -> Iterator[List[str]]:
        return (row for _, row in self.numbered_rows())

    def numbered_rows(self) -> Iterator[Tuple[int, List[str]]]:
        reader = csv.reader(lines(self.text), delimiter=self.separator, strict=True,
                            skipinitialspace=self.separator != ' ')
        try:
            for row in reader:
                if row:
                    yield reader.line_num, row
        except csv.Error as error:
            raise DataError(f'{self.where}, line {reader.line_num}: {error}; '
                            f'check the quotes and the separator ({self.separator!r})') from error

    def first_widths(self) -> Dict[int, int]:
        """Return the number of columns of each of the first rows, by line; of none where the quotes are wrong."""
        try:
            return {line: len(row) for line, row in islice(self.numbered_rows(), _FIRST_ROWS)}
        except DataError:
            return {}

    def set_header(self, header: Optional[bool], user_column: Optional[Column], item_column: Optional[Column],
                   *more_columns: Optional[Column]) -> None:
        """Take the first row for names, or not; guess where ``header`` is ``None``."""
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
        columns: List[List[Any]] = [[] for _ in positions]
        same: List[Dict[str, str]] = [{} for _ in positions]  # one text for all its copies
        targets = list(zip(positions, [column.append for column in columns], [texts.setdefault for texts in same]))
        width = math.inf if self.names is None else len(self.names)
        try:
            for line, row in self.body():
                if len(row) > width and (self.separator != ' ' or any(row[len(self.first):])):
                    raise DataError(f'{self.where}, line {line}: {len(row)} columns where the header names {width}; '
                                    f'quote each field that holds {self.separator!r}')
                for position, append, text in targets:
                    append(text(row[position], row[position]))
        except IndexError:
            self.fail_short(max(positions) + 1)
        return columns

    def fail(self, position: int, value: Any, mend: str) -> NoReturn:
        line = next(line for line, row in self.body() if row[position] == value)
        hint = "; set 'header' to true if this line names the columns" if line == 1 else ''
        raise DataError(f'{self.where}, line {line}: {value!r} {mend}{hint}')

    def fail_short(self, width: int) -> NoReturn:
        line, row = next((line, row) for line, row in self.numbered_rows() if len(row) < width)
        found = 'one column' if len(row) == 1 else f'{len(row)} columns'
        raise DataError(f'{self.where}, line {line}: {found} where at least {width} are needed; columns are taken to '
                        f"be separated by {self.separator!r}, set 'separator' or 'layout' if they are not")


class TypedTable(Table):
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


class FrameTable(TypedTable):
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


class ParquetTable(TypedTable):
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


def lines(text: str) -> Iterator[str]:
    """Yield the lines of a text with their ends as they are, without a copy of the whole."""
    start = 0
    while start < len(text):
        end = text.find('\n', start + _PIECE) + 1 or len(text)
        yield from io.StringIO(text[start:end], newline='')
        start = end


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


def _names_numbers(first: List[str], second: List[str], *columns: Optional[Column]) -> bool:
    """Tell whether the second row has numeric ids and the first has none, so that it names them."""
    positions = [default if column is None else column for default, column in enumerate(columns)]
    if any(not isinstance(position, int) or position >= len(second) for position in positions):
        return False
    return all(DIGITS.fullmatch(second[position]) and not re.fullmatch(r'[-+]?[0-9.]*', first[position].strip())
               for position in positions if isinstance(position, int) and position < len(first))


def _without_blanks(text: str, separator: str) -> str:
    """Return text without the blanks after fields, but in quotes; the reader drops those before them."""
    if separator == ' ' or not any(f' {end}' in text for end in (separator, '\n', '\r')) and text[-1] != ' ':
        return text
    mark = re.escape(separator)
    blanks = rf' (?<!  ) *(?={mark}|[\r\n]|\Z)'  # from the first of a run: from each would take its square
    if '"' not in text:
        return re.sub(blanks, '', text)
    return re.sub(rf'((?:\A|[\r\n]|{mark}) *"[^"]*(?:""[^"]*)*")|{blanks}', r'\1', text)


def _listing(names: Sequence[str]) -> str:
    return ', '.join(repr(name) for name in names)


def _plain(name: str) -> str:
    return re.sub(r'[-_\s]', '', name.split(':')[0]).casefold()
