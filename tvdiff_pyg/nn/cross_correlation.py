"""The cross-correlation of two sets of codes (SPEC 3)."""
from __future__ import annotations

import torch
from torch import Tensor

from tvdiff_pyg.nn.functional import Entries, sampled_dot
from tvdiff_pyg.utils import check_index, transformed


class CrossCorrelation(torch.nn.Module):
    r"""Scores of given pairs as inner products of their codes: TV-Diff's output layer, for any pair of node types.

    .. math::
        s_{ui} = \langle c_u, h_i \rangle

    Differentiable in both sets of codes, and without an array of a row a pair: the scores are entries of a sampled
    product, their gradients two sparse ones (only in transforms of :mod:`torch.func` there is such an array). The
    scores of all pairs of a block are ``source[block] @ target.t()``.

    Shapes:
        * ``source``: ``[V_src, d]``, ``target``: ``[V_dst, d]``;
        * ``edge_label_index``: ``[2, Q]``, sources and targets, in any order, repeated if you like;
        * output: ``[Q]``.

    Raises:
        ValueError: codes of different widths, or pairs out of range.

    Cost: 2 Q d flops forward, 4 Q d backward, and a sort of the pairs.

    Source: "cross-correlation" of arXiv 2511.20122.
    """

    def forward(self, source: Tensor, target: Tensor, edge_label_index: Tensor) -> Tensor:
        if source.size(-1) != target.size(-1):
            raise ValueError(f"'source' and 'target' must be codes of one width, got {source.size(-1)} and "
                             f"{target.size(-1)}")
        check_index('edge_label_index', edge_label_index, (source.size(0), target.size(0)))
        row, col = edge_label_index
        if transformed():
            return (source[row] * target[col]).sum(-1)
        order = row.argsort(stable=True)
        pairs = Entries.of(row[order], col[order], source.size(0), target.size(0))
        scores = sampled_dot(pairs, source, target)
        return torch.empty_like(scores).index_copy(0, order, scores)
