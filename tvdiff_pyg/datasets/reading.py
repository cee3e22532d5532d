"""The one parser of interactions: text and Parquet files, data frames, edge lists."""
from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Dict, List, NoReturn, Optional, Union

import numpy as np
from torch import Tensor

from tvdiff_pyg.datasets.records import DataError, PathLike, Records, TextPairs, check_ids, read_bytes
from tvdiff_pyg.datasets.tables import Column, FrameTable, ParquetTable, TextTable, lines

LAYOUTS = ('auto', 'table', 'adjacency', 'pairs')
_PARQUET = b'PAR1'
_SEPARATORS = '\t,;|'
_HEAD = 2 ** 20  # characters, of which the first rows are a small part


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

    Blanks around a field of a text file do not belong to it, unless they stand in quotes; a Parquet file's are kept.
    A ``'table'`` holds one interaction a line, its fields separated by one character and quoted as in CSV. An
    ``'adjacency'`` file holds one user a line, ``user item item ...``, separated by white space; a user may have
    no items. ``'pairs'`` are lines ``user item ...`` separated by white space, of which the first two fields count.
    ``'auto'`` takes a file for a table where one of the options below is given or its first line holds
    a tab, comma, semicolon or bar, else for adjacency, which it refuses where a later line holds one. A Parquet file
    is a table that knows its own header; it is recognised by its first bytes, whatever its name.

    Args:
        path: the file.
        layout: ``'auto'``, ``'table'``, ``'adjacency'`` or ``'pairs'``.
        separator: one character; guessed from the first ten rows if omitted: a tab, comma, semicolon or bar of the
            first line that gives all of them two columns or more, and none more than the first.
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

    if read_bytes(path, len(_PARQUET)) == _PARQUET:
        if layout in ('adjacency', 'pairs') or any(option is not None for option in text_options):
            raise ValueError(f"{path} is a Parquet file, which knows its own layout; omit 'layout', 'separator' and "
                             f"'header'")
        return ParquetTable(path).records(*columns, numeric_ids)
    text = _read_text(path)
    first_line = next(line for line in lines(text) if line.strip())
    marks = [mark for mark in _SEPARATORS if mark in first_line]
    if layout == 'adjacency' or (layout == 'auto' and not marks and not has_table_options):
        if layout == 'auto':
            _check_no_table(path, text)
        return Records(*_read_adjacency(path, text, numeric_ids))
    if layout == 'pairs':
        return Records(*_read_pairs(path, text, numeric_ids))
    table = TextTable(path, text, separator or _guess_separator(path, text, first_line, marks))
    table.set_header(header, user_column, item_column, rating_column, time_column)
    return table.records(*columns, numeric_ids)


def frame_records(
    frame: Any,
    *,
    name: str = 'frame',
    argument: str = 'frame',
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
        argument: what an error calls the argument that is no DataFrame.
        user_column, item_column, rating_column, min_rating, time_column: as in :func:`read_records`; a time may be a
            ``datetime64`` as well.

    Raises:
        DataError: a column is absent, an id or a value is missing or of no use, or there are no interactions.
        ValueError: the options contradict each other.
        TypeError: ``frame`` is no pandas DataFrame.
    """
    _check_rating_options(rating_column, min_rating)
    if not hasattr(frame, 'iloc') or not hasattr(frame, 'columns'):
        raise TypeError(f"'{argument}' must be a pandas DataFrame, got {type(frame).__name__}; convert it, with "
                        f"to_pandas() say, or pass edges to InteractionEdges")
    return FrameTable(name, frame).records(user_column, item_column, rating_column, min_rating, time_column, False)


def edge_records(edge_index: Union[Tensor, np.ndarray], time: Union[Tensor, np.ndarray, None] = None,
                 argument: str = 'edge_index') -> Records:
    """Take interactions from an edge list; the numbers become ids as text.

    Args:
        edge_index: users over items, integers ``[2, E]`` from 0.
        time: time of each, finite numbers ``[E]``.
        argument: what errors call the edges.

    Raises:
        ValueError: a shape, a type or a number is wrong.
        DataError: there are no edges.
    """
    edges = _array(edge_index)
    if edges.ndim != 2 or edges.shape[0] != 2 or edges.dtype.kind not in 'iu':
        raise ValueError(f"'{argument}' must hold integers [2, E], users over items; got {edges.dtype} "
                         f"{list(edges.shape)}")
    if edges.size == 0:
        raise DataError(f"'{argument}': no interactions")
    if int(edges.min()) < 0:
        raise ValueError(f"'{argument}' must hold integers from 0, got {int(edges.min())}")
    times = None
    if time is not None:
        values = _array(time)
        if values.shape != edges.shape[1:] or values.dtype.kind not in 'iuf' or not np.isfinite(values).all():
            raise ValueError(f"'time' must hold finite numbers [{edges.shape[1]}], one an edge; got {values.dtype} "
                             f"{list(values.shape)}{', not all finite' if values.dtype.kind == 'f' else ''}")
        times = np.unique(values, return_inverse=True)[1]
    return Records(list(map(str, edges[0].tolist())), list(map(str, edges[1].tolist())), times)


def _check_rating_options(rating_column: Optional[Column], min_rating: Optional[float]) -> None:
    if rating_column is not None and min_rating is None:
        raise ValueError("'rating_column' is used only with 'min_rating'; pass both")
    if min_rating is not None and not math.isfinite(min_rating):
        raise ValueError(f"'min_rating' must be a finite number, got {min_rating}")


def _array(values: Union[Tensor, np.ndarray]) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _read_text(path: Path) -> str:
    content = read_bytes(path)
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


def _guess_separator(path: Path, text: str, first_line: str, marks: List[str]) -> str:
    """Return the one of the marks of the first line that separates columns; a blank where there are none."""
    head = text[:text.rfind('\n', 0, _HEAD) + 1] if len(text) > _HEAD else text
    widths = {mark: TextTable(path, head or text, mark).first_widths() for mark in marks}
    first = {mark: next(iter(rows.values()), 0) for mark, rows in widths.items()}
    if '\t' in marks and not widths['\t']:
        return '\t'  # what is wrong with its quotes is told by who reads the table
    fitting = [mark for mark, rows in widths.items() if rows and 1 < min(rows.values()) and
               max(rows.values()) == first[mark]]
    if not fitting:
        mark = marks[0] if marks else ' '
        for line, width in widths.get(mark, {}).items():
            if width > first[mark] > 1:
                raise DataError(f"{path}, line {line}: {width} columns where the first line has {first[mark]}; remove "
                                f"titles above the table, or set 'separator', to {mark!r} if that is what it is")
        return mark  # what is wrong with it is told by who reads the table
    if fitting[0] == '\t' or len(fitting) == 1:
        return fitting[0]
    if any(min(widths[mark].values()) < first[mark] for mark in fitting):
        raise DataError(f"{path}: columns may be separated by {' or '.join(map(repr, fitting))}; set 'separator'")
    return min(fitting, key=first_line.index)  # others stand in a later field: decimal commas, lists, titles


def _check_no_table(path: Path, text: str) -> None:
    """Refuse what was taken for adjacency by its first line, and is a table below it."""
    position = min((text.index(mark) for mark in _SEPARATORS if mark in text), default=None)
    if position is not None:
        number = sum(1 for _ in lines(text[:position + 1]))
        raise DataError(f"{path}, line {number}: holds {text[position]!r}, and the first line does not; if it "
                        f"separates columns, set 'separator' and remove what stands above them, else set 'layout' to "
                        f"adjacency")


def _read_adjacency(path: Path, text: str, numeric_ids: bool) -> TextPairs:
    users: List[str] = []
    items: List[str] = []
    line_of: Dict[str, int] = {}
    for number, line in enumerate(lines(text), start=1):
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
        numbered = enumerate(lines(text), start=1)
        number = next(number for number, line in numbered if bad in line.split())
        raise DataError(f'{path}, line {number}: {bad!r} {mend}')

    check_ids(list(line_of), numeric_ids, fail, f'{path}, users')
    check_ids(items, numeric_ids, fail, f'{path}, items')
    if not items:
        raise DataError(f"{path}: no interactions, every line has one column; "
                        f"expected 'user item item ...' or one pair a line")
    return users, items


def _read_pairs(path: Path, text: str, numeric_ids: bool) -> TextPairs:
    rows = [(number, line.split()) for number, line in enumerate(lines(text), start=1)
            if line.strip()]
    for number, fields in rows:
        if len(fields) < 2:
            raise DataError(f'{path}, line {number}: one column where at least 2 are needed, separated by white space')
    for column in (0, 1):
        def fail(bad: str, mend: str) -> NoReturn:
            line = next(number for number, fields in rows if fields[column] == bad)
            raise DataError(f'{path}, line {line}: {bad!r} {mend}')

        check_ids([fields[column] for _, fields in rows], numeric_ids, fail, f'{path}, column {column}')
    return [fields[0] for _, fields in rows], [fields[1] for _, fields in rows]
