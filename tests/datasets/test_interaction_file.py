"""Tests of a user's own interactions: typed columns, times, and the three ways in."""
from __future__ import annotations

import datetime
import hashlib
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict

import numpy as np
import pytest
import torch
from torch_geometric.data import HeteroData

from tvdiff_pyg.datasets import (
    DataError,
    InteractionEdges,
    InteractionFile,
    InteractionFrame,
    file_sha256,
    files_checksum,
    read_interactions,
)
from tvdiff_pyg.datasets.reading import frame_records, read_records
from tvdiff_pyg.transforms import RATES, HoldOut

DAYS = ('2024-05-01', '2024-05-31 18:30:00', '2024-05-31T20:30:00+02:00', '2024-05-31T18:30:01Z')
ROWS = [(f'ü{user}', f'日{item}', 1 + (user + item) % 5, 1_700_000_000_000_000_000 + (user * 7 + item * 5) % 23)
        for user in range(9) for item in range(11) if (user * item) % 4 != 3]
COLUMNS = ('who', 'what', 'stars', 'at')


def write_csv(folder: Path, rows: Any = ROWS, name: str = 'mine.csv') -> Path:
    path = folder / name
    path.write_text('\n'.join(','.join(map(str, row)) for row in (COLUMNS, *rows)) + '\n')
    return path


def edges_of(data: HeteroData) -> Dict[str, Any]:
    edges = {name: data[RATES][name].tolist() for name in ('edge_index', 'edge_label_index', 'val_edge_label_index')
             if name in data[RATES]}
    return {**edges, 'users': data.user_id, 'items': data.item_id, 'dropped': data.dropped}


NAMED: Dict[str, Any] = {'user_column': 'who', 'item_column': 'what'}
SPLITS: Any = [
    {},
    {'min_rating': 3, 'rating_column': 'stars', 'seed': 3, 'test_ratio': 0.4},
    {'k_core': 5, 'min_rating': 2, 'rating_column': 2},
    {'split': 'leave-one-out', 'time_column': 'at'},
    {'split': 'leave-one-out', 'seed': 8, 'min_interactions': 5},
    {'split': 'temporal', 'time_column': 3, 'test_ratio': 0.3, 'k_core': 4},
]


@pytest.mark.parametrize('options', SPLITS)
def test_file_frame_and_parquet_are_one(options: Dict[str, Any], tmp_path: Path) -> None:
    pandas = pytest.importorskip('pandas')
    pytest.importorskip('pyarrow')
    want = edges_of(InteractionFile(write_csv(tmp_path), **NAMED, **options)[0])
    assert len(want['edge_label_index'][0]) > 4
    frame = pandas.DataFrame(ROWS, columns=COLUMNS)
    before = frame.copy()
    for other in (frame, frame.iloc[::-1], frame.set_index('at', drop=False), frame.assign(at=frame['at'].astype(str)),
                  frame.assign(who=frame['who'].astype('category'))):
        assert edges_of(InteractionFrame(other, **NAMED, **options)[0]) == want
    assert frame.equals(before)
    path = tmp_path / 'a table'  # known by its bytes, not by its name
    frame.set_index('stars').reset_index()[list(COLUMNS)].to_parquet(path)
    data = InteractionFile(path, **NAMED, **options)[0]
    assert edges_of(data) == want and data.name == 'a table'
    assert data.checksum == files_checksum([('a table', file_sha256(path))])


@pytest.mark.parametrize('options', [{}, {'k_core': 4}, {'split': 'leave-one-out'}, {'split': 'temporal'}])
def test_edge_list_equals_frame(options: Dict[str, Any]) -> None:
    pandas = pytest.importorskip('pandas')
    rng = np.random.default_rng(0)
    edges, time = rng.integers(0, 14, (2, 120)), rng.random(120)
    timed = 'split' in options
    frame = pandas.DataFrame({'user': edges[0], 'item': edges[1], 'time': time})
    want = InteractionFrame(frame, time_column='time' if timed else None, **options)[0]
    for values in (edges, torch.from_numpy(edges), torch.from_numpy(edges).int()):
        data = InteractionEdges(values, time if timed else None, **options)[0]
        assert edges_of(data) == edges_of(want)
        assert data.checksum == want.checksum != InteractionEdges(edges[:, 1:])[0].checksum
    assert data.name == 'edges' and want.name == 'frame'


@pytest.mark.parametrize('edges, time, message', [
    (np.zeros((3, 2), dtype=int), None, r"'edge_index' must hold integers \[2, E\], .* got int64 \[3, 2\]"),
    (np.zeros((2, 3)), None, r'got float64 \[2, 3\]'),
    (np.array([[0, 1], [2, -3]]), None, "'edge_index' must hold integers from 0, got -3"),
    (np.zeros((2, 0), dtype=int), None, "'edge_index': no interactions"),
    (np.zeros((2, 3), dtype=int), np.arange(2), r"'time' must hold finite numbers \[3\], .* got int64 \[2\]"),
    (np.zeros((2, 3), dtype=int), np.array([1, np.nan, 2]), 'not all finite'),
])
def test_bad_edges(edges: Any, time: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InteractionEdges(edges, time, split='ratio' if time is None else 'leave-one-out')


def test_the_three_have_the_same_defaults() -> None:
    def defaults(function: Callable[..., Any]) -> Dict[str, Any]:
        return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()
                if name in ('split', 'test_ratio', 'min_interactions', 'seed', 'k_core')}

    assert len(defaults(InteractionFile)) == 5
    assert defaults(InteractionFile) == defaults(InteractionFrame) == defaults(InteractionEdges)


@pytest.mark.parametrize('times, want', [
    (['3', '-1', ' 3 ', '20'], [1, 0, 1, 2]),
    (['1e3', '1000', '999.5', '+7'], [2, 2, 1, 0]),
    (['9007199254740993', '9007199254740992', '9007199254740992.0'], [1, 0, 0]),  # floats would not tell them apart
    (DAYS, [0, 1, 1, 2]),
    (['2024-05-01', '2023-12-31'], [1, 0]),
])
def test_times_in_order(times: Any, want: list[int], tmp_path: Path) -> None:
    path = write_csv(tmp_path, [('u', f'i{row}', 5, time) for row, time in enumerate(times)])
    got = read_records(path, time_column='at').times
    assert got is not None and got.tolist() == want
    assert read_records(path, min_rating=5, rating_column='stars').times is None


def test_ratings_are_filtered_before_times_count(tmp_path: Path) -> None:
    path = write_csv(tmp_path, [('u', 'a', 1, 9), ('u', 'd', 2, 8), ('u', 'c', 5, 3), ('u', 'a', 5, 1),
                                ('u', 'b', 5, 2), ('v', 'a', 5, 0), ('v', 'b', 5, 0)])
    options: Dict[str, Any] = {'min_rating': 4, 'rating_column': 'stars', 'time_column': 'at'}
    data = InteractionFile(path, split='leave-one-out', **NAMED, **options)[0]
    assert data.dropped['low_ratings'] == 2 and data.dropped['duplicate_pairs'] == 0
    assert data[RATES].val_edge_label_index.tolist() == [[0], [1]]
    assert data.item_id == ['a', 'b'] and data.dropped['test_items'] == 1  # c, the last that is liked: not in train


def test_low_ratings_of_all_files_are_counted(tmp_path: Path) -> None:
    train = write_csv(tmp_path, [('u', 'a', 5, 0), ('u', 'b', 5, 0), ('u', 'c', 1, 0)])
    test = write_csv(tmp_path, [('u', 'b', 1, 0), ('v', 'a', 5, 0)], 'test.csv')
    data = InteractionFile(train, test, min_rating=2, rating_column='stars')[0]
    assert (data.dropped['low_ratings'], data.dropped['test_users']) == (2, 1)
    assert 'low_ratings' not in InteractionFile(train, test)[0].dropped


@pytest.mark.parametrize('rows, options, message', [
    ([('u', 'a', 5, 'soon'), ('u', 'b', 5, 2)], {'time_column': 'at'}, "line 2: 'soon' is not a time; .*2024-05-31"),
    ([('u', 'a', 5, 1), ('u', 'b', 5, '')], {'time_column': 3}, "line 3: '' is not a time"),
    ([('u', 'a', 5, 1), ('u', 'b', 5, 'nan')], {'time_column': 3}, "line 3: 'nan' is not a time"),
    ([('u', 'a', 5, 1), ('u', 'b', 5, '2024-05-01')], {'time_column': 3},
     "line 3: '2024-05-01' is not a time of the kind of '1'; times must be all numbers or all dates"),
    ([('u', 'a', 5, 1)], {'time_column': 'when'}, "no column 'when'; the columns are 'who', .*; set 'time_column'"),
    ([('u', 'a', 5, 1)], {'time_column': 4}, "no column 4; there are columns 0 to 3; set 'time_column'"),
])
def test_bad_times_name_the_line(rows: Any, options: Dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as caught:
        InteractionFile(write_csv(tmp_path, rows), split='leave-one-out', **NAMED, **options)
    assert '\n' not in str(caught.value)


def test_a_table_with_a_time_but_no_header(tmp_path: Path) -> None:
    path = tmp_path / 'mine.tsv'
    path.write_text(''.join(f'u\ti{item}\t{-item}\n' for item in range(5)))
    data = InteractionFile(path, split='leave-one-out', time_column=2)[0]
    assert data.item_id == ['i2', 'i3', 'i4'] and data.dropped['test_items'] == data.dropped['validation_items'] == 1
    with pytest.raises(ValueError, match="time_column='at' needs a header"):
        InteractionFile(path, split='leave-one-out', header=False, time_column='at')
    with pytest.raises(ValueError, match="'layout' pairs knows no .* times"):
        read_records(path, layout='pairs', time_column=2)


def typed(**columns: Any) -> Any:
    pandas = pytest.importorskip('pandas')
    return pandas.DataFrame({'user': [1, 2, 2], 'item': ['a', 'b', 'c'], **columns})


NOW = datetime.datetime(2024, 5, 31, 18, 30)


@pytest.mark.parametrize('columns, options, message', [
    ({'user': [1.0, 2.0, 3.0]}, {}, r"column 'user', row 0 \(from 0\): 1.0 is not an id; .*astype\('int64'\)"),
    ({'user': [1, None, 3]}, {}, "column 'user', row 1 .*: None is an empty id"),
    ({'item': ['a', None, 'b']}, {}, "column 'item', row 1 .*: None is an empty id; fill it in or remove the row"),
    ({'item': ['a', 'b', ' ']}, {}, "column 'item', row 2 .* is an empty id"),
    ({'item': [True, False, True]}, {}, "column 'item', row 0 .*: True is not an id"),
    ({'item': [['a'], 'b', 'c']}, {}, r"column 'item', row 0 .*: \['a'\] is neither text nor a number"),
    ({'rating': [5, np.nan, 5]}, {'min_rating': 4}, "column 'rating', row 1 .*: None is not a rating"),
    ({'rating': ['5', '4', 'x']}, {'min_rating': 4}, "column 'rating', row 2 .*: 'x' is not a rating"),
    ({'rating': [1, 2, 3]}, {'min_rating': 4}, 'frame: no interactions with a rating of at least 4'),
    ({'at': [1, np.inf, 2]}, {'time_column': 'at'}, "column 'at', row 1 .*: inf is not a time"),
    ({'at': [NOW, None, NOW]}, {'time_column': 'at'}, "column 'at', row 1 .*: None is not a time"),
    ({'at': [1, NOW, 2]}, {'time_column': 'at'}, "column 'at', row 1 .* is not a time of the kind of 1"),
    ({}, {'user_column': 'who'}, "frame: no column 'who'; the columns are 'user', 'item'; set 'user_column'"),
    ({}, {'item_column': 0}, 'users and items cannot both come from column 0'),
    ({}, {'min_rating': 4}, "'min_rating' needs a column of ratings"),
])
def test_bad_frames_name_column_and_row(columns: Any, options: Dict[str, Any], message: str, tmp_path: Path) -> None:
    frame = typed(**columns)
    with pytest.raises(DataError, match=message) as caught:
        frame_records(frame, **options)
    assert '\n' not in str(caught.value)


def test_frames_hold_times_in_many_forms() -> None:
    pandas = pytest.importorskip('pandas')
    stamps = pandas.to_datetime(['2024-05-31', '2024-05-30', '2024-05-30'])
    nanoseconds = pandas.Series([2, 1, 1]).astype('datetime64[ns]')
    for times in (stamps, stamps.tz_localize('UTC'), stamps.astype(str), [NOW, NOW.replace(day=1), NOW.replace(day=1)],
                  [datetime.date(2024, 5, 2), datetime.date(2024, 5, 1), datetime.date(2024, 5, 1)], nanoseconds,
                  [0.5, -1, -1]):
        got = frame_records(typed(at=times), time_column='at')
        assert got.times is not None and got.times.tolist() == [1, 0, 0]
        assert got.pairs == (['1', '2', '2'], ['a', 'b', 'c'])
    with pytest.raises(TypeError, match="'frame' must be a pandas DataFrame, got list"):
        InteractionFrame([[1, 2]])
    with pytest.raises(DataError, match='1 columns where at least 2 are needed'):
        InteractionFrame(typed()[['user']])


def test_parquet_types(tmp_path: Path) -> None:
    pa = pytest.importorskip('pyarrow')
    pq = pytest.importorskip('pyarrow.parquet')
    path = tmp_path / 'mine.parquet'
    columns: Dict[str, Any] = {'item': pa.array([7, 2 ** 62, 7]).dictionary_encode(), 'user': ['é', 'b', 'c'],
                               'rating': pa.array([4, None, 5], pa.int8()),
                               'at': pa.array([3, 2, 2], pa.timestamp('ns', tz='Europe/Oslo')),
                               'day': pa.array([20000, 19999, 19999], pa.date32()), 'tags': [['x'], [], None]}
    pq.write_table(pa.table(columns), path)
    assert read_interactions(path) == (['é', 'b', 'c'], ['7', str(2 ** 62), '7'])
    for column in ('at', 'day'):
        times = read_records(path, time_column=column).times
        assert times is not None and times.tolist() == [1, 0, 0]
    with pytest.raises(DataError, match=r"mine.parquet, column 'rating', row 1 \(from 0\): None is not a rating"):
        read_records(path, min_rating=4)
    with pytest.raises(DataError, match="column 'tags', row 0 .* is neither text nor a number"):
        read_records(path, item_column='tags')
    for options in ({'header': True}, {'separator': ','}, {'layout': 'pairs'}):
        with pytest.raises(ValueError, match="is a Parquet file, which knows its own layout; omit 'layout'"):
            read_records(path, **options)  # type: ignore[arg-type]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match='mine.parquet: cannot be read as a Parquet file') as caught:
        read_records(path)
    assert '\n' not in str(caught.value)


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'mine.parquet').write_bytes(b'PAR1....PAR1')
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    with pytest.raises(ImportError, match=r"needs pyarrow: pip install 'tvdiff-pyg\[parquet\]'"):
        InteractionFile(tmp_path / 'mine.parquet')


def test_neither_pandas_nor_pyarrow_is_imported_unasked() -> None:
    code = ('import sys; before = set(sys.modules)\n'
            'import torch_geometric.data\n'
            'theirs = set(sys.modules)\n'
            'import tvdiff_pyg.datasets, tvdiff_pyg.transforms\n'
            "print(sorted({'pandas', 'pyarrow', 'scipy', 'yaml'} & (set(sys.modules) - theirs)))")
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == '[]'


def test_everything_filtered_away_is_said(tmp_path: Path) -> None:
    path = write_csv(tmp_path)
    with pytest.raises(DataError, match="'k_core' 99 leaves nothing of 90 pairs"):
        InteractionFile(path, k_core=99)
    with pytest.raises(DataError, match='no interactions with a rating of at least 6'):
        InteractionFile(path, min_rating=6, rating_column='stars')
    with pytest.raises(ValueError, match="'k_core' is for one file of all pairs"):
        InteractionFile(path, path, k_core=2)
    with pytest.raises(ValueError, match="'split' leave-one-out is for one file"):
        InteractionFile(path, validation_path=path, split='leave-one-out')
    with pytest.raises(ValueError, match="'time_column' .* is used only where 'split'"):
        InteractionFile(path, time_column='at')


def test_a_ratio_beside_a_test_file_is_refused(tmp_path: Path) -> None:
    for name in ('train', 'test'):
        (tmp_path / name).write_text('user,item\na,b\n')
    with pytest.raises(ValueError, match="'test_ratio' is for one file of all pairs; omit it, or 'test_path'"):
        InteractionFile(tmp_path / 'train', tmp_path / 'test', test_ratio=0.3)


def test_interaction_file_with_its_own_parts(snapshot: Callable[[Path], Any], tmp_path: Path) -> None:
    for part, content in (('train', 'user,item\nu,a\nu,b\nv,a\n'), ('test', 'user,item\nv,b\nw,a\n'),
                          ('validation', 'user,item\nu,c\n')):
        (tmp_path / f'{part}.csv').write_text(content)
    before = snapshot(tmp_path)
    dataset = InteractionFile(tmp_path / 'train.csv', tmp_path / 'test.csv', tmp_path / 'validation.csv')
    data = dataset[0]
    assert snapshot(tmp_path) == before
    assert len(dataset) == 1
    assert data.name == dataset.name == 'train'
    assert data[RATES].edge_label_index.tolist() == [[1], [1]]
    assert data[RATES].val_edge_label_index.tolist() == [[], []]
    assert (data.dropped['test_users'], data.dropped['validation_items']) == (1, 1)
    lines = ''.join(f"{hashlib.sha256((tmp_path / f'{part}.csv').read_bytes()).hexdigest()}  {part}.csv\n"
                    for part in ('test', 'train', 'validation'))
    assert data.checksum == hashlib.sha256(lines.encode()).hexdigest()


@pytest.mark.parametrize('parts', [('test',), ('validation',), ('test', 'validation')])
def test_the_three_take_parts_of_ones_own(parts: Any, tmp_path: Path) -> None:
    """What a part may not hold is dropped and counted; the edges are those of the file, whoever gave them."""
    pandas = pytest.importorskip('pandas')
    rows = {'train': [(user, item, 1 + (user + item) % 5) for user in range(8) for item in range(9) if user != item],
            'test': [(0, 0, 5), (1, 1, 5), (2, 1, 5), (9, 1, 5), (3, 3, 2)], 'validation': [(4, 4, 5), (4, 99, 5)]}
    frames = {part: pandas.DataFrame(values, columns=['user', 'item', 'rating']) for part, values in rows.items()}
    for part, frame in frames.items():
        frame.to_csv(tmp_path / f'{part}.csv', index=False)
    files: Dict[str, Any] = {f'{part}_path': tmp_path / f'{part}.csv' for part in parts}
    rating: Dict[str, Any] = {'min_rating': 3, 'rating_column': 'rating'}
    for options in ({}, rating):
        want = InteractionFile(tmp_path / 'train.csv', **files, **options)[0]
        got = InteractionFrame(frames['train'], **{part: frames[part] for part in parts}, **options)[0]
        assert edges_of(got) == edges_of(want)
        assert want[RATES].edge_label_index.size(1) and ('test' not in parts or want.dropped['test_users'] == 1)
    assert want.dropped['low_ratings'] == sum(row[2] < 3 for part in ('train', *parts) for row in rows[part])
    edges = {part: np.array(values).T[:2] for part, values in rows.items()}
    data = InteractionEdges(edges['train'], **{part: edges[part] for part in parts})[0]
    assert edges_of(data) == edges_of(InteractionFile(tmp_path / 'train.csv', **files)[0])
    frame = InteractionFrame(frames['train'], **{part: frames[part] for part in parts})[0]
    assert data.checksum == frame.checksum not in (
        InteractionEdges(edges['train'])[0].checksum,
        InteractionEdges(edges['train'], **{part: edges[part][:, ::-1] for part in parts})[0].checksum)


def test_parts_that_cannot_be_are_named() -> None:
    frame, edges = typed(), np.array([[0, 1, 1], [0, 1, 2]])
    for options, message in (({'k_core': 2}, "'k_core' is for one file .*of a frame or an edge list, 'test' and"),
                             ({'split': 'leave-one-out'}, "'split' leave-one-out is for one file"),
                             ({'test_ratio': 0.3}, "'test_ratio' is for one file .* edge list, 'test'")):
        with pytest.raises(ValueError, match=message):
            InteractionFrame(frame, test=frame, **options)
        with pytest.raises(ValueError, match=message):
            InteractionEdges(edges, test=edges, **options)
    with pytest.raises(TypeError, match="'validation' must be a pandas DataFrame, got list"):
        InteractionFrame(frame, validation=[[1, 2]])
    with pytest.raises(DataError, match="frame, test: no column 'who'"):
        InteractionFrame(frame.rename(columns={'user': 'who'}), test=frame, user_column='who')
    with pytest.raises(ValueError, match=r"'test' must hold integers \[2, E\], .* got int64 \[3, 2\]"):
        InteractionEdges(edges, test=edges.T)
    with pytest.raises(ValueError, match="'validation' must hold integers from 0, got -1"):
        InteractionEdges(edges, validation=edges - 1)


def test_interaction_file_with_a_hold_out(tmp_path: Path) -> None:
    path = tmp_path / 'mine.tsv'
    path.write_text(''.join(f'u{user}\ti{item}\t{item % 5}\n' for user in range(8) for item in range(20)))
    data = InteractionFile(path, seed=2, name='mine too', min_rating=1, rating_column=2)[0]
    assert data.name == 'mine too'
    assert data['item'].num_nodes == 16
    assert torch.bincount(data[RATES].edge_label_index[0]).tolist() == [3] * 8  # round(0.2 * 16)
    assert data[RATES].edge_index.size(1) == 8 * 13
    whole = InteractionFile(path, test_ratio=0)[0]
    assert 'edge_label_index' not in whole[RATES]
    assert whole[RATES].edge_index.size(1) == 160
    out = InteractionFile(path, transform=HoldOut())[0]
    assert out[RATES].val_edge_label_index.size(1) == 8 * 2  # round(0.1 * 16)
    with pytest.raises(ValueError, match="'test_ratio' must lie between"):
        InteractionFile(path, test_ratio=1.2)
    with pytest.raises(TypeError, match='seperator'):
        InteractionFile(path, seperator=',')
    with pytest.raises(DataError, match='absent.tsv: no such file'):
        InteractionFile(path, tmp_path / 'absent.tsv')


def test_items_are_fresh_copies(tmp_path: Path) -> None:
    path = tmp_path / 'pairs.txt'
    path.write_text('1\t2\n3\t4\n')
    dataset = InteractionFile(path)
    first = dataset[0]
    first[RATES].edge_index = first[RATES].edge_index[:, :1]
    assert dataset[0][RATES].edge_index.tolist() == [[0, 1], [0, 1]]
    assert read_interactions(path) == (['1', '3'], ['2', '4'])
