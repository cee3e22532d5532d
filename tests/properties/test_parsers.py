"""Generated files against the parsers: what comes in is read as it stands, or refused in one line."""
from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import pytest

pytest.importorskip('hypothesis')
from hypothesis import example, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from tvdiff_pyg.datasets import InteractionFile  # noqa: E402
from tvdiff_pyg.datasets.reading import read_records  # noqa: E402
from tvdiff_pyg.datasets.records import DataError  # noqa: E402

many = settings.get_profile('many')

IDS = st.one_of(
    st.integers(-2, 2 ** 64 + 1).map(str), st.sampled_from(['0', '007', '7', ' 7', '1e3', 'NaN', 'user', 'item', '-0']),
    st.text(st.characters(codec='utf-8', exclude_categories=['Cs']), min_size=1, max_size=8))
FIELDS = st.one_of(IDS, st.just(''), st.floats().map(str), st.sampled_from([
    '"', '""', "'", '\\', '\ufeff', '\x00', 'ü ü']))
SEPARATORS = st.sampled_from([',', '\t', ';', '|', ' ', '::'])
LINES = st.lists(st.lists(FIELDS, max_size=5), max_size=12)
COLUMNS = st.one_of(st.none(), st.integers(-2, 6), st.sampled_from(['user', 'item', 'rating', 'nope', '']))
OPTIONS = st.fixed_dictionaries({}, optional={
    'layout': st.sampled_from(['auto', 'table', 'adjacency', 'pairs', 'nope']),
    'separator': st.sampled_from([',', '\t', '', '::', '"', '\n']), 'header': st.booleans(),
    'user_column': COLUMNS, 'item_column': COLUMNS, 'rating_column': COLUMNS, 'time_column': COLUMNS,
    'min_rating': st.one_of(st.floats(), st.integers(-5, 5)), 'numeric_ids': st.booleans()})


@pytest.fixture(scope='module')
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('generated') / 'file.txt'


def _read(path: Path, content: bytes, options: Dict[str, Any]) -> Optional[Tuple[List[str], List[str]]]:
    """Return the pairs of a file, or ``None`` where it is refused, in one line that names something."""
    path.write_bytes(content)
    try:
        records = read_records(path, **options)
    except (DataError, ValueError) as error:
        assert str(error) and '\n' not in str(error) and len(str(error)) < 2000, repr(str(error))
        assert str(path) in str(error) or "'" in str(error)
        return None
    users, items = records.pairs
    assert len(users) == len(items) > 0 and all(users) and all(items)
    assert all(isinstance(name, str) for name in (*users, *items))  # spaces and all
    if options.get('numeric_ids'):
        assert all(name.isdecimal() for name in (*users, *items))
    return users, items


@many
@given(st.binary(max_size=200), OPTIONS)
@example(b'\xff\xfe', {}).via('not UTF-8')
@example(b'PAR1', {}).via('a Parquet file of four bytes')
@example(b'\x00' * 50, {})
def test_any_bytes(path: Path, content: bytes, options: Dict[str, Any]) -> None:
    _read(path, content, options)


@many
@given(LINES, SEPARATORS, st.sampled_from(['\n', '\r\n', '\r']), st.booleans(), OPTIONS)
def test_any_table(path: Path, lines: List[List[str]], separator: str, ending: str, mark: bool,
                   options: Dict[str, Any]) -> None:
    text = ending.join(separator.join(line) for line in lines)
    _read(path, ('\ufeff' if mark else '').encode() + text.encode('utf-8', 'replace'), options)


CLEAN = st.text(st.characters(codec='utf-8', exclude_categories=['Cs', 'Cc', 'Zs', 'Zl', 'Zp']), min_size=1, max_size=6)


@many
@given(st.lists(st.tuples(CLEAN, CLEAN), min_size=1, max_size=15), st.sampled_from(',\t;|'))
def test_a_table_that_csv_wrote_comes_back_as_it_was(path: Path, pairs: List[Tuple[str, str]], separator: str) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator='\n').writerows([('user', 'item'), *pairs])
    got = _read(path, text.getvalue().encode(), {'separator': separator, 'header': True})
    assert got is not None and list(zip(*got)) == pairs


@many
@given(st.dictionaries(st.integers(0, 2 ** 63 - 1), st.lists(st.integers(0, 2 ** 63 - 1), max_size=6), min_size=1,
                       max_size=8))
def test_adjacency_lists_come_back_as_they_were(path: Path, lists: Dict[int, List[int]]) -> None:
    text = '\n'.join(' '.join(map(str, (user, *items))) for user, items in lists.items())
    got = _read(path, text.encode(), {'layout': 'adjacency', 'numeric_ids': True})
    pairs = [(str(user), str(item)) for user, items in lists.items() for item in items]
    assert (got is None and not pairs) or (got is not None and list(zip(*got)) == pairs)


@many
@given(LINES, st.sampled_from(['ratio', 'leave-one-out', 'temporal', 'nope']), st.one_of(st.none(), st.integers(-1, 3)),
       st.floats(-0.5, 1.5), st.integers(-1, 3))
def test_any_table_as_a_data_set(path: Path, lines: List[List[str]], split: str, k_core: Optional[int], ratio: float,
                                 seed: int) -> None:
    path.write_text('\n'.join(','.join(line) for line in [['user', 'item', 'time'], *lines]), encoding='utf-8',
                    errors='replace')
    options: Dict[str, Any] = {'time_column': 'time'} if split == 'temporal' else {}
    try:
        data = InteractionFile(path, split=split, k_core=k_core, test_ratio=ratio, seed=seed, **options)[0]
    except (DataError, ValueError) as error:
        assert str(error) and '\n' not in str(error)
        return
    users, items = len(data.user_id), len(data.item_id)
    assert users == data['user'].num_nodes == len(set(data.user_id))
    assert items == data['item'].num_nodes == len(set(data.item_id))
    for name, edges in data['user', 'rates', 'item'].items():
        if name.endswith('index') and edges.numel():
            assert int(edges.min()) >= 0 and int(edges[0].max()) < users and int(edges[1].max()) < items
