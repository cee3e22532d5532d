"""Data sets of raw interaction files: fetched once, verified at every load, never written to otherwise."""
from __future__ import annotations

import hashlib
import http.client
import os
import os.path as osp
import urllib.request
import uuid
from pathlib import Path
from typing import Any, Callable, ClassVar, Dict, List, Mapping, Optional

from torch_geometric.data import HeteroData, InMemoryDataset

from tvdiff_pyg.datasets.interactions import (
    DataError,
    PathLike,
    TextPairs,
    file_sha256,
    files_checksum,
    interaction_data,
    read_interactions,
)

TIMEOUT = 60.0  # seconds without a byte before a download is given up

TAB_PAIRS: Mapping[str, Any] = {'layout': 'table', 'separator': '\t', 'header': False, 'numeric_ids': True}
WHITESPACE_PAIRS: Mapping[str, Any] = {'layout': 'pairs', 'numeric_ids': True}
ADJACENCY: Mapping[str, Any] = {'layout': 'adjacency', 'numeric_ids': True}


class InteractionDataset(InMemoryDataset):
    """A data set with a fixed train and test split, and a validation part where there is a ``valid.txt``.

    To add one, set the class attributes. Absent files are downloaded; nothing is processed or cached, so a
    folder that already holds the files may be read-only.

    Args:
        root: the folder that holds ``NAME/raw/``; by default the environment variable ``TVDIFF_DATA``, else
            ``~/.cache/tvdiff_pyg``.
        transform: applied to the graph at every access.

    Attributes:
        name: name of the data set and of its folder.
        url: address that the file names are appended to.
        files: file name to expected SHA-256, or ``None`` where it is unknown.
        options: options of :func:`read_interactions` for the files.

    Raises:
        DataError: a file cannot be fetched or written, has another checksum, or is malformed.
    """

    name: ClassVar[str]
    url: ClassVar[str]
    files: ClassVar[Mapping[str, Optional[str]]]
    options: ClassVar[Mapping[str, Any]] = TAB_PAIRS

    def __init__(self, root: Optional[PathLike] = None,
                 transform: Optional[Callable[[HeteroData], HeteroData]] = None) -> None:
        folder = Path(root or os.environ.get('TVDIFF_DATA') or '~/.cache/tvdiff_pyg').expanduser()
        raw = folder / self.name / 'raw'
        if not all((raw / file).is_file() for file in self.files):
            _make_folder(raw)  # before PyG does, for an error that says the mend
        super().__init__(str(folder), transform)
        self.data, self.slices = self.collate([self._read()])

    @property
    def raw_dir(self) -> str:
        """The folder of the raw files."""
        return osp.join(self.root, self.name, 'raw')

    @property
    def raw_file_names(self) -> List[str]:
        """The raw files."""
        return list(self.files)

    def download(self) -> None:
        """Fetch the raw files that are absent; a file is put in place only when it is whole and verified.

        Raises:
            DataError: a file cannot be fetched or written, or has another checksum.
        """
        for file, expected in self.files.items():
            path = Path(self.raw_dir) / file
            if path.exists():
                continue
            content = self.fetch(file)
            got = hashlib.sha256(content).hexdigest()
            if expected is not None and got != expected:
                raise DataError(f'{self.address(file)}: SHA-256 expected {expected}, got {got}; nothing was kept: try '
                                f'again, or put the right file at {path} by hand')
            _put(path, content)

    def address(self, file: str) -> str:
        """Return the URL that ``file`` is made from."""
        return f'{self.url}/{file}'

    def fetch(self, file: str) -> bytes:
        """Return the content of the raw file ``file`` from upstream.

        Raises:
            DataError: it cannot be had.
        """
        return http_get(self.address(file))

    def _read(self) -> HeteroData:
        checksums: Dict[str, str] = {}
        for file, expected in self.files.items():
            path = Path(self.raw_dir) / file
            checksums[file] = file_sha256(path)
            if expected is not None and checksums[file] != expected:
                raise DataError(f'{path}: SHA-256 expected {expected}, got {checksums[file]}; delete the file, and it '
                                f'is downloaded anew, or read your own files with InteractionFile')
        parts: Dict[str, TextPairs] = {
            file: read_interactions(Path(self.raw_dir) / file, **self.options) for file in self.files}
        return interaction_data(self.name, parts['train.txt'], parts['test.txt'], parts.get('valid.txt'),
                                checksum=files_checksum(checksums.items()))


def http_get(url: str) -> bytes:
    """Return what a URL holds, whole.

    Args:
        url: the address.

    Raises:
        DataError: the server cannot be reached, refuses, or sends less than it announced.
    """
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            content: bytes = response.read()  # raises IncompleteRead where less comes than was announced
    except http.client.IncompleteRead as error:
        raise DataError(f'{url}: the download broke off after {len(error.partial)} bytes; try again') from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DataError(f'{url}: cannot be downloaded ({error}); check the network, '
                        f'or put the file in place by hand') from error
    return content


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _put(path: Path, content: bytes) -> None:
    """Write under another name first, so that a file under its own name is always whole."""
    part = path.with_name(f'.{path.name}.{uuid.uuid4().hex}.part')
    try:
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        try:
            part.unlink()
        except OSError:
            pass  # it was put in place, or never made


def _unwritable(path: Path, error: OSError) -> DataError:
    return DataError(f'{path}: cannot be written ({error.strerror}); the data has to be downloaded there: '
                     f'pass a writable root=, or set TVDIFF_DATA')
