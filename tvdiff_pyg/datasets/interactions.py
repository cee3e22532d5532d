"""The one parser of interaction files and the one builder of interaction graphs."""
from __future__ import annotations

import csv
import hashlib
import io
import math
import os
import re
from operator import itemgetter
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, NoReturn, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from tvdiff_pyg.transforms.edge_types import RATED_BY, RATES
from tvdiff_pyg.transforms.hold_out import hold_out_mask

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


class DataError(ValueError):
    """Data that cannot be read, fetched or trusted; the message is one line and says the mend."""

    def __init__(self, message: str) -> None:
        super().__init__(re.sub(r'\s*[\r\n]+\s*', ' ', message))


def read_interactions(
    path: PathLike,
    *,
    layout: str = 'auto',
    separator: Optional[str] = None,
    header: Optional[bool] = None,
    user_column: Optional[Column] = None,
    item_column: Optional[Column] = None,
    rating_column: Optional[Column] = None,
    min_rating: Optional[float] = None,
    numeric_ids: bool = False,
) -> TextPairs:
    """Read user-item pairs from a UTF-8 text file, ids kept as the text they are, in file order.

    A ``'table'`` holds one interaction a line, its fields separated by one character and quoted as in CSV. An
    ``'adjacency'`` file holds one user a line, ``user item item ...``, separated by white space; a user may have
    no items. ``'pairs'`` are lines ``user item ...`` separated by white space, of which the first two fields count.
    ``'auto'`` takes a file for a table where one of the options below is given or its first line holds
    a tab, comma, semicolon or bar, else for adjacency.

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
        min_rating: keep only interactions with at least this rating.
        numeric_ids: require ids to be non-negative integers.

    Returns:
        ``(users, items)``, two lists of one length.

    Raises:
        DataError: the file is missing, empty, not UTF-8 or malformed, or holds no interactions.
        ValueError: the options contradict each other.
    """
    path = Path(path)
    table_options = (separator, header, user_column, item_column, rating_column, min_rating)
    has_table_options = any(option is not None for option in table_options)
    if layout not in LAYOUTS:
        raise ValueError(f"'layout' must be one of {', '.join(LAYOUTS)}; got {layout!r}")
    if layout in ('adjacency', 'pairs') and has_table_options:
        raise ValueError(f"'layout' {layout} knows no separator, header, columns or ratings; omit them")
    if separator is not None and len(separator) != 1:
        raise ValueError(f"'separator' must be one character, got {separator!r}")
    if rating_column is not None and min_rating is None:
        raise ValueError("'rating_column' is used only with 'min_rating'; pass both")
    if min_rating is not None and not math.isfinite(min_rating):
        raise ValueError(f"'min_rating' must be a finite number, got {min_rating}")

    text = _read_text(path)
    first_line = next(line for line in io.StringIO(text, newline=None) if line.strip())
    guess = next((mark for mark in '\t,;|' if mark in first_line), None)
    if layout == 'adjacency' or (layout == 'auto' and guess is None and not has_table_options):
        return _read_adjacency(path, text, numeric_ids)
    if layout == 'pairs':
        return _read_pairs(path, text, numeric_ids)
    table = _Table(path, text, separator or guess or ' ')
    return table.read(header, user_column, item_column, rating_column, min_rating, numeric_ids)


def interaction_data(
    name: str,
    train: TextPairs,
    test: Optional[TextPairs] = None,
    validation: Optional[TextPairs] = None,
    *,
    checksum: str,
    item_attributes: Optional[Mapping[str, Mapping[str, Any]]] = None,
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

    user_ids, item_ids = _ordered(train[0]), _ordered(train[1])
    num_users, num_items = len(user_ids), len(item_ids)
    user_code = {user: index for index, user in enumerate(user_ids)}
    item_code = {item: index for index, item in enumerate(item_ids)}
    # Ids absent from train get codes above the index space, so that one comparison finds them.
    codes = {part: (_encode(users, user_code), _encode(items, item_code)) for part, (users, items) in parts.items()}
    width = len(item_code)
    keys = {part: _sorted_unique(user * width + item) for part, (user, item) in codes.items()}
    duplicates = sum(len(users) - keys[part].size for part, (users, _) in parts.items())

    seen = keys['train']
    dropped: Dict[str, int] = {}
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


def hold_out_pairs(pairs: TextPairs, ratio: float, min_interactions: int, seed: int) -> Tuple[TextPairs, TextPairs]:
    """Split pairs by :func:`~tvdiff_pyg.transforms.hold_out_mask`, whatever their order; copies stay together.

    Args:
        pairs: users and items as text.
        ratio: the part of each user's distinct items to hold out, between 0 and 1, both excluded.
        min_interactions: users with fewer distinct items give none.
        seed: seed of the choice.

    Returns:
        The pairs that stay and the pairs held out.

    Raises:
        ValueError: ``ratio`` or ``min_interactions`` is out of range.
    """
    users, items = pairs
    user_code = {user: index for index, user in enumerate(_ordered(users))}
    item_code = {item: index for index, item in enumerate(_ordered(items))}
    key, inverse = np.unique(_encode(users, user_code) * len(item_code) + _encode(items, item_code),
                             return_inverse=True)
    user_index = torch.from_numpy(key // max(len(item_code), 1))
    mask = hold_out_mask(user_index, ratio, min_interactions, torch.Generator().manual_seed(seed))
    held_out = mask.numpy()[inverse].tolist()
    kept: Tuple[List[str], List[str]] = ([], [])
    moved: Tuple[List[str], List[str]] = ([], [])
    for user, item, out in zip(users, items, held_out):
        part = moved if out else kept
        part[0].append(user)
        part[1].append(item)
    return kept, moved


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
    """A separated file whose rows can be gone through twice: once fast, once more to say which line is wrong."""

    def __init__(self, path: Path, text: str, separator: str) -> None:
        self.path = path
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
            raise DataError(f'{self.path}, line {reader.line_num}: {error}; '
                            f'check the quotes and the separator ({self.separator!r})') from error

    def read(self, header: Optional[bool], user_column: Optional[Column], item_column: Optional[Column],
             rating_column: Optional[Column], min_rating: Optional[float], numeric_ids: bool) -> TextPairs:
        start = self.rows()
        first, second = next(start, []), next(start, [])
        if len(first) < 2:
            self.fail_short(2)
        if header is None:
            header = (any(isinstance(column, str) for column in (user_column, item_column, rating_column))
                      or any(_plain(field) in _USER_NAMES for field in first)
                      or sum(_plain(field) in _ITEM_NAMES | _RATING_NAMES for field in first) > 1
                      or _names_numbers(first, second, user_column, item_column))
        names = first if header else None

        user = self.column('user_column', user_column, names, len(first), _USER_NAMES)
        item = self.column('item_column', item_column, names, len(first), _ITEM_NAMES)
        if (user is None and item is None) or names is None:
            user, item = 0 if user is None else user, 1 if item is None else item
        if user is None or item is None:
            raise DataError(f"{self.path}: none of the columns {_listing(first)} has a common name for "
                            f"{'users' if user is None else 'items'}; "
                            f"set '{'user_column' if user is None else 'item_column'}'")
        if user == item:
            raise DataError(f"{self.path}: users and items cannot both come from column {user}; "
                            f"set 'user_column' and 'item_column'")
        columns = [user, item]
        if min_rating is not None:
            rating = self.column('rating_column', rating_column, names, len(first), _RATING_NAMES)
            if rating is None:
                raise DataError(f"{self.path}: 'min_rating' needs a column of ratings, none of {_listing(first)} has "
                                f"a common name for one; set 'rating_column'")
            columns.append(rating)

        rows = self.rows()
        if header:
            next(rows)
        try:
            fields = list(map(itemgetter(*columns), rows))
        except IndexError:
            self.fail_short(max(columns) + 1)
        users, items = [field[0] for field in fields], [field[1] for field in fields]
        for values, position in ((users, user), (items, item)):
            _check_ids(values, numeric_ids, lambda bad, mend: self.fail(header, position, bad, mend))
        if min_rating is not None:
            good = self.ratings([field[2] for field in fields], header, columns[2], min_rating)
            users = [user for user, kept in zip(users, good) if kept]
            items = [item for item, kept in zip(items, good) if kept]
        if not users:
            limit = '' if min_rating is None else f' with a rating of at least {min_rating:g}'
            raise DataError(f'{self.path}: no interactions{limit}')
        return users, items

    def column(self, option: str, column: Optional[Column], names: Optional[List[str]], width: int,
               common: Iterable[str]) -> Optional[int]:
        if isinstance(column, str):
            if names is None:
                raise ValueError(f"{option}={column!r} needs a header; give a position, or set 'header' to true")
            stripped = [name.strip() for name in names]
            if column.strip() not in stripped:
                raise DataError(f"{self.path}: no column {column!r}; "
                                f"the columns are {_listing(names)}; set '{option}'")
            return stripped.index(column.strip())
        if column is not None:
            if not 0 <= column < width:
                raise DataError(f"{self.path}: no column {column}; line 1 has columns 0 to {width - 1}; set '{option}'")
            return column
        return next((index for index, name in enumerate(names or []) if _plain(name) in common), None)

    def ratings(self, values: List[str], header: bool, column: int, min_rating: float) -> List[bool]:
        passes: Dict[str, bool] = {}
        for value in dict.fromkeys(values):
            try:
                number = float(value)
            except ValueError:
                number = math.nan
            if not math.isfinite(number):
                self.fail(header, column, value, 'is not a rating; it must be a finite number')
            passes[value] = number >= min_rating
        return [passes[value] for value in values]

    def fail(self, header: bool, column: int, value: str, mend: str) -> NoReturn:
        rows = self.numbered_rows()
        if header:
            next(rows)
        line = next(line for line, row in rows if row[column] == value)
        hint = "; set 'header' to true if this line names the columns" if line == 1 else ''
        raise DataError(f'{self.path}, line {line}: {value!r} {mend}{hint}')

    def fail_short(self, width: int) -> NoReturn:
        line, row = next((line, row) for line, row in self.numbered_rows() if len(row) < width)
        found = 'one column' if len(row) == 1 else f'{len(row)} columns'
        raise DataError(f'{self.path}, line {line}: {found} where at least {width} are needed; columns are taken to be '
                        f"separated by {self.separator!r}, set 'separator' or 'layout' if they are not")


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


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
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


def _ordered(ids: Sequence[str]) -> List[str]:
    distinct = set(ids)
    for value in distinct:
        if not isinstance(value, str):
            raise TypeError(f'original ids must be text, got {value!r}; convert them with str()')
    if all(_CANONICAL_INT.fullmatch(value) for value in distinct):
        return sorted(distinct, key=int)
    return sorted(distinct)


def _encode(ids: Sequence[str], code: Dict[str, int]) -> np.ndarray:
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
