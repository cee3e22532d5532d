"""Small things that several parts need."""
from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import Iterator, Tuple

import torch
from torch import Tensor


def csr_tensor(rowptr: Tensor, col: Tensor, value: Tensor, size: Tuple[int, int]) -> Tensor:
    """Return a sparse CSR tensor, without torch's remark that the layout is a beta feature."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='Sparse CSR')
        return torch.sparse_csr_tensor(rowptr, col, value, size=size, check_invariants=False)


def csr_positions(rowptr: Tensor, index: Tensor) -> Tuple[Tensor, Tensor]:
    """Return where the entries of some rows of a CSR matrix lie.

    Args:
        rowptr: where each row starts ``[num_rows + 1]``.
        index: the rows ``[n]``.

    Returns:
        For each entry, the position of its row in ``index``, and its own position in the matrix's columns and values.
    """
    start = rowptr[index]
    count = rowptr[index + 1] - start
    row = torch.arange(index.numel(), device=index.device).repeat_interleave(count)
    offset = torch.arange(row.numel(), device=index.device) - (count.cumsum(0) - count)[row]
    return row, start[row] + offset


def transformed() -> bool:
    """Tell whether a transform of :mod:`torch.func` or forward-mode differentiation is at work, which gradients written
    by hand do not support."""
    return not torch.compiler.is_compiling() and (
        torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0)


def readable(values: Tensor) -> bool:
    """Tell whether a check may read values: not on a GPU, which would have to wait for it, nor while a compiler or
    :mod:`torch.func` traces, nor where there are none."""
    return not (torch.compiler.is_compiling() or values.device.type != 'cpu' or values.numel() == 0 or transformed())


def check_index(name: str, index: Tensor, sizes: Tuple[int, int]) -> None:
    """Raise ``ValueError``, naming the argument, unless ``index`` is ``[2, n]`` with rows below ``sizes``.

    The range is checked where the indices are :func:`readable`.
    """
    if index.dim() != 2 or index.size(0) != 2 or index.is_floating_point():
        raise ValueError(f"'{name}' must hold integers of shape [2, n], got {index.dtype} of {list(index.shape)}")
    if not readable(index):
        return
    for row, size in enumerate(sizes):
        low, high = (int(value) for value in index[row].aminmax())
        if low < 0 or high >= size:
            raise ValueError(f"row {row} of '{name}' holds {low} to {high}, but there are {size} such nodes: indices "
                             f"must lie in 0..{size - 1}")


@contextmanager
def evaluation_mode(module: torch.nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode without gradients, and every submodule back into its own mode after."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes:
            part.training = mode


def largest_mask(scores: Tensor, k: int) -> Tensor:
    """Mark the ``k`` largest entries of each row, of equal ones the first: ``topk`` leaves open which.

    Args:
        scores: ``[B, N]``.
        k: 1..N.
    """
    least = scores.topk(k, dim=1).values[:, -1:]
    larger, equal = scores > least, scores == least
    room = k - larger.sum(1, keepdim=True)
    return larger | equal & (equal.cumsum(1) <= room)
