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
