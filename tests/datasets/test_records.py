"""Tests of what errors and checksums of interactions hold."""
from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

from tvdiff_pyg.datasets import DataError, file_sha256, files_checksum


def test_data_error_is_one_line_and_pickles() -> None:
    error = DataError('a\r\n  b')
    assert str(error) == 'a b'
    assert isinstance(error, ValueError)
    assert str(pickle.loads(pickle.dumps(error))) == 'a b'


def test_checksums(tmp_path: Path) -> None:
    path = tmp_path / 'data.txt'
    path.write_bytes(b'1\t2\n')
    one = hashlib.sha256(b'1\t2\n').hexdigest()
    assert file_sha256(path) == one
    two = '0' * 64
    want = hashlib.sha256(f'{two}  a.txt\n{one}  b.txt\n'.encode()).hexdigest()
    assert files_checksum([('b.txt', one), ('a.txt', two)]) == want
