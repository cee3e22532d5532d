"""Data sets of raw interaction files: fetched once, verified at every load, never written to otherwise."""
from __future__ import annotations

import hashlib
import http.client
import inspect
import os
import os.path as osp
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Callable, ClassVar, Dict, Iterator, List, Mapping, Optional

from torch_geometric.data import HeteroData, InMemoryDataset

from tvdiff_pyg.datasets.interactions import interaction_data
from tvdiff_pyg.datasets.reading import read_interactions, read_records
from tvdiff_pyg.datasets.records import DataError, PathLike, TextPairs, file_sha256, files_checksum
from tvdiff_pyg.files import lock, write_atomically

TIMEOUT = 60.0  # seconds without a byte before a download is given up
MAX_BYTES = 2 ** 28  # of one file; the largest that is published here has 12 million
CHUNK = 2 ** 20  # bytes

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
        files: ``train.txt``, ``test.txt`` and, where there is one, ``valid.txt``, each to its expected SHA-256, or
            ``None`` where it is unknown.
        options: options of :func:`~tvdiff_pyg.datasets.read_records` for the files.

    Raises:
        ValueError: ``files`` or ``options`` of a class hold what they cannot.
        DataError: a file cannot be fetched or written, has another checksum, or is malformed.
    """

    name: ClassVar[str]
    url: ClassVar[str]
    files: ClassVar[Mapping[str, Optional[str]]]
    options: ClassVar[Mapping[str, Any]] = TAB_PAIRS

    def __init__(self, root: Optional[PathLike] = None,
                 transform: Optional[Callable[[HeteroData], HeteroData]] = None) -> None:
        if not {'train.txt', 'test.txt'} <= set(self.files) <= {'train.txt', 'test.txt', 'valid.txt'}:
            raise ValueError(f"'files' of {type(self).__name__} must name train.txt and test.txt, and valid.txt where "
                             f"there is one, got {', '.join(self.files)}: read other files with InteractionFile")
        unknown = set(self.options) - (set(inspect.signature(read_records).parameters) - {'path'})
        if unknown:
            raise ValueError(f"'options' of {type(self).__name__} holds {', '.join(sorted(unknown))}, which "
                             f"read_records does not know")
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

        What came of a download that broke off, or was killed, stays as ``.FILE.download`` where the checksum is known,
        and gone on from the next time. Processes that want the same file wait for the one that fetches it.

        Raises:
            DataError: a file cannot be fetched or written, or has another checksum.
        """
        for file, expected in self.files.items():
            path = Path(self.raw_dir) / file
            if path.exists():
                continue
            with _part(path, keep=expected is not None) as part:
                if path.exists():
                    continue
                content = self.fetch(file, part)
                got = hashlib.sha256(content).hexdigest()
                if expected is not None and got != expected:
                    raise DataError(f'{self.address(file)}: SHA-256 expected {expected}, got {got}; nothing was kept: '
                                    f'try again, or put the right file at {path} by hand')
                write_atomically(path, lambda temporary: temporary.write_bytes(content))

    def address(self, file: str) -> str:
        """Return the URL that ``file`` is made from."""
        return f'{self.url}/{file}'

    def fetch(self, file: str, part: Path) -> bytes:
        """Return the content of the raw file ``file`` from upstream, by way of ``part``; see :func:`http_get`.

        Raises:
            DataError: it cannot be had.
        """
        return http_get(self.address(file), part)

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


def http_get(url: str, part: Path) -> bytes:
    """Return what a URL holds, whole.

    Args:
        url: the address: HTTPS, or a file or server of this machine.
        part: a file that what comes is written to; what it holds already is not asked for again, where the server
            can send the rest alone. Whether that belongs to what is there today, only a checksum tells.

    Raises:
        DataError: another kind of address, or the server cannot be reached, refuses, sends less than it announced or
            more than ``MAX_BYTES``.
    """
    _check_address(url)
    had = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={'Range': f'bytes={had}-'} if had else {})
    try:
        response = urllib.request.build_opener(_CheckedRedirects).open(request, timeout=TIMEOUT)
    except DataError:
        raise
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE or not had:
            raise _no_download(url, error) from error
        if error.headers['Content-Range'] == f'bytes */{had}':  # that is all there is
            return part.read_bytes()
        return _from_the_start(url, part)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _no_download(url, error) from error
    with response:
        goes_on = had > 0 and response.status == http.client.PARTIAL_CONTENT
        if goes_on and not (response.headers['Content-Range'] or '').startswith(f'bytes {had}-'):
            return _from_the_start(url, part)
        size = had if goes_on else 0
        length = response.headers['Content-Length'] or ''
        announced = size + (int(length) if length.isdecimal() else 0)
        with open(part, 'ab' if goes_on else 'wb') as file:
            while max(size, announced) <= MAX_BYTES:
                chunk = _read(response, url)
                if not chunk:
                    break
                size += file.write(chunk)
    if max(size, announced) > MAX_BYTES:
        raise DataError(f'{url}: more than {MAX_BYTES} bytes, which no file of this data set has: put the right file '
                        f'in place by hand')
    if size < announced:
        raise _Unfinished(f'{url}: the download broke off after {size} bytes of {announced}; try again')
    return part.read_bytes()


def _check_address(url: str) -> None:
    if not url.startswith(('https://', 'file:///', 'http://127.0.0.1:', 'http://localhost:')):
        raise DataError(f'{url}: not an address of HTTPS: nothing was downloaded')


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
        _check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _from_the_start(url: str, part: Path) -> bytes:
    """What was begun is of something else, by what the server says."""
    part.write_bytes(b'')
    return http_get(url, part)


def _read(response: Any, url: str) -> bytes:
    try:
        chunk: bytes = response.read(CHUNK)
        return chunk
    except (OSError, http.client.HTTPException) as error:
        raise _no_download(url, error) from error


class _Unfinished(DataError):
    """What has come of a download may be gone on from."""


def _no_download(url: str, error: Exception) -> DataError:
    return _Unfinished(f'{url}: cannot be downloaded ({error}); check the network, or put the file in place by hand')


@contextmanager
def _part(path: Path, keep: bool) -> Iterator[Path]:
    """Give this process alone the file that a download of ``path`` goes to, and remove it in the end.

    Where it breaks off and ``keep``, what has come stays for the next time.
    """
    part = path.with_name(f'.{path.name}.download')
    try:
        with _held(part) as file:
            finished = False
            if not keep:
                file.truncate(0)
            try:
                yield part
                finished = True
            except DataError as error:
                finished = not isinstance(error, _Unfinished)
                raise
            finally:
                if finished or not keep or not part.stat().st_size:
                    with suppress(PermissionError):  # of Windows, as it is open
                        part.unlink()
    except OSError as error:
        raise _unwritable(path, error) from error


def _held(part: Path) -> IO[bytes]:
    """Open and lock a file; who held it before may have removed it meanwhile."""
    while True:
        file = open(part, 'ab')
        lock(file, wait=True)
        with suppress(FileNotFoundError):
            if os.path.samestat(part.stat(), os.fstat(file.fileno())):
                return file
        file.close()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(path: Path, error: OSError) -> DataError:
    return DataError(f'{path}: cannot be written ({error.strerror}); the data has to be downloaded there: '
                     f'pass a writable root=, or set TVDIFF_DATA')
