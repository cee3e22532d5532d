"""Tests of a data set's files: downloads from a server on this machine, checksums, places that cannot be written."""
from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import os
import threading
import time
from pathlib import Path
from typing import Iterator, Optional

import numpy as np
import pytest

from tvdiff_pyg.datasets import ML1M, DataError, InteractionDataset
from tvdiff_pyg.datasets.base import _part
from tvdiff_pyg.transforms import RATES

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


@pytest.mark.parametrize('name, value, expected', [
    ('files', {'all.tsv': None}, "'files' of Tiny must name train.txt and test.txt, .* got all.tsv: .*actionFile"),
    ('files', {'train.txt': None, 'test.txt': None, 'more.txt': None}, 'got train.txt, test.txt, more.txt'),
    ('options', {'sep': ','}, "'options' of Tiny holds sep, which read_records does not know")])
def test_a_class_that_cannot_be_read_is_refused(name: str, value: dict, expected: str, tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tiny, name, value)
    with pytest.raises(ValueError, match=expected):
        Tiny(tmp_path)
    assert left(tmp_path) == []


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
