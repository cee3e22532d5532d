"""ogb's modules, and torch's loading of files without running what they hold."""
from __future__ import annotations

import os
import pickle
import re
import zipfile
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Iterator, List, NoReturn, Tuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import GlobalStorage

from tvdiff_pyg.datasets.records import DataError

_FORCE_SAFE, _FORCE_UNSAFE = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'


def ogb_module(module: str) -> Any:
    try:
        return import_module(f'ogb.{module}')
    except ImportError as error:
        raise ImportError(f'OGB data sets and its evaluator need ogb ({error}): pip install "tvdiff-pyg[ogb]"'
                          ) from error


class _Dtype:
    """What a file's ``numpy.dtype`` becomes: one of four types of numbers."""

    def __init__(self, name: str, align: bool = False, copy: bool = False) -> None:
        if name not in ('i4', 'i8', 'f4', 'f8'):
            raise ValueError(f'arrays of {name!r} are not read, only int32, int64, float32 and float64')
        self.numpy = np.dtype(f'<{name}')

    def __setstate__(self, state: Tuple[Any, ...]) -> None:
        if state[1] != '<':
            raise ValueError(f'arrays of byte order {state[1]!r} are not read')


class _Numbers:
    """What a file's ``numpy.ndarray`` becomes: a tensor, once its shape, type and bytes are known."""

    tensor: Tensor

    def __setstate__(self, state: Tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, _Dtype) or not isinstance(content, bytes):
            raise ValueError('an array that does not hold plain numbers is not read')
        array = np.frombuffer(content, dtype.numpy).reshape(shape, order='F' if fortran else 'C')
        self.tensor = torch.from_numpy(array.copy(order='C'))


def _reconstruct(subtype: Any, shape: Any, dtype: Any) -> _Numbers:
    return _Numbers()


def _scalar(dtype: _Dtype, content: bytes) -> Any:
    return np.frombuffer(content, dtype.numpy).item()


_ALLOWED: List[Any] = [
    Data, GlobalStorage, DataEdgeAttr, DataTensorAttr, (_Numbers, 'numpy.ndarray'), (_Dtype, 'numpy.dtype'),
    bytes,  # how the content of an empty array is written
    *((function, f'numpy.{core}.multiarray.{name}') for core in ('core', '_core')
      for name, function in (('_reconstruct', _reconstruct), ('scalar', _scalar))),
]


@contextmanager
def safe_loading(folder: Path) -> Iterator[None]:
    """Have torch unpickle nothing but data, whoever calls ``torch.load`` and however; one error for what fails."""
    before = {name: os.environ.pop(name, None) for name in (_FORCE_SAFE, _FORCE_UNSAFE)}
    os.environ[_FORCE_SAFE] = '1'
    allowed = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()  # numpy's own types, if the program allows them, would clash with ours
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            yield
    except DataError:
        raise
    except (pickle.UnpicklingError, zipfile.BadZipFile, AssertionError, AttributeError, EOFError, LookupError, OSError,
            RuntimeError, TypeError, ValueError) as error:  # what files that were tampered with can bring about
        _fail(folder, error)
    finally:
        torch.serialization.add_safe_globals(allowed)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _fail(folder: Path, error: Exception) -> NoReturn:
    reason = str(error) or type(error).__name__
    foreign = re.search(r'GLOBAL (\S+) (?:was not an allowed|whose module)|but got <class \'([^\']+)\'>', reason)
    if isinstance(error, pickle.UnpicklingError) and foreign:
        raise DataError(f'{folder}: a .pt file holds {foreign.group(1) or foreign.group(2)}, which is no data that OGB '
                        f'writes; nothing of it was run. Get the data set from a source that you trust, or delete '
                        f"its 'processed' folder if that is where the file is") from error
    if isinstance(error, pickle.UnpicklingError):
        reason = 'a .pt file is broken, or holds more than data'  # torch's text advises the unsafe way
    if isinstance(error, EOFError) and 'reading a line' in reason:
        reason = 'ogb asks whether to update or download, and nobody answers: run it in a terminal, or move the folder'
    raise DataError(f'{folder}: cannot be loaded ({reason}); check the network and the files, or unpack the data set '
                    f'there by hand') from error


def tensors(value: Any) -> Any:
    """Return a split in tensors: ogb gives arrays, or tensors, by the file."""
    if isinstance(value, dict):
        return {key: tensors(entry) for key, entry in value.items()}
    if isinstance(value, _Numbers):
        return value.tensor
    return value
