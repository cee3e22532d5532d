"""One-hop anisotropic convolution (SPEC 3)."""
from __future__ import annotations

from typing import Any, Dict, Optional, Tuple, Union

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedParameter
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.nn.inits import glorot
from torch_geometric.nn.resolver import activation_resolver
from torch_geometric.typing import Adj, OptPairTensor, OptTensor, Size, SparseTensor
from torch_geometric.utils import cumsum, is_sparse, scatter, spmm

from tvdiff_pyg.nn.cross_correlation import CrossCorrelation
from tvdiff_pyg.nn.graph import NormalizedGraph
from tvdiff_pyg.utils import check_index, csr_tensor, readable, transformed

NORMALIZATIONS: Dict[str, Tuple[float, float]] = {
    'sym': (0.5, 0.5),
    'left': (1.0, 0.0),
    'linkprop': (0.25, 0.5),
    'raw': (0.0, 0.0),
}
"""Exponents ``(a, b)`` of the normalisation ``deg(source)^-a * deg(destination)^-b``."""

SORT_FROM = 2 ** 18
"""Edges times width from which an edge list is sorted on the CPU: measured by ``benchmarks.backends``."""


class TVDiffConv(MessagePassing):
    r"""The item side of TV-Diff's denoiser as a bipartite layer: one hop, no stacking, nothing shared.

    .. math::
        H_i = \mathrm{act}\Big(\sum_{u \in N(i)} w_{ui} \deg(u)^{-a} \deg(i)^{-b}\, x_u W \Big)

    ``(a, b)`` is (1/2, 1/2) for ``sym``, (1, 0) for ``left``, (1/4, 1/2) for ``linkprop`` and (0, 0) for ``raw``;
    degrees are sums of edge weights, and a node of degree 0 gives 0. Weights should be >= 0; signed ones need a
    ``degree`` of their own in a call, the sums of their absolute values say. Sources without features
    (``x_src = None``) are the paper's case: :math:`x_u W` is then row :math:`u` of the free table :math:`W`.

    Args:
        in_channels: width of the source features, -1 to find it at the first call, or the number of source nodes
            where they have no features. Of a ``(source, destination)`` tuple the first is used: destination
            features do not enter the equation.
        out_channels: width of the output.
        normalization: ``sym``, ``left``, ``linkprop`` or ``raw``.
        act: activation by name, as a module, or ``None``.
        **kwargs: further arguments of :class:`torch_geometric.nn.conv.MessagePassing`.

    Shapes:
        * ``x``: ``[V, in]``, or a pair ``([V_src, in] or None, anything or None)`` (the other way round where
          ``flow`` is ``target_to_source``: its entries follow the rows of ``edge_index``);
        * ``edge_index``: ``[2, E]``, a tensor or an ``EdgeIndex``, or the transposed adjacency ``[V_dst, V_src]`` as a
          sparse tensor (torch's COO, CSR or CSC, or torch-sparse's), whose values are then the edge weights, or what
          :meth:`prepare` made of either: degrees and indices computed once, for a graph that stays;
        * output: ``[V_dst, out]``.

    Raises:
        ValueError: an unknown normalisation, weights of the wrong length, degrees of the wrong shape, a degree
            below 0 or an index out of range (both checked on the CPU), a number of source nodes other than that of
            their features, a number of destination nodes that nothing tells, or a sparse tensor or a prepared graph of
            another number of them than ``size`` or their features.

    Source: "anisotropic denoiser" of arXiv 2511.20122.
    """

    weight: Tensor

    def __init__(
        self,
        in_channels: Union[int, Tuple[int, int]],
        out_channels: int,
        normalization: str = 'sym',
        act: Union[str, torch.nn.Module, None] = 'tanh',
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault('aggr', 'sum')
        super().__init__(**kwargs)
        if normalization not in NORMALIZATIONS:
            raise ValueError(f"'normalization' must be one of {', '.join(NORMALIZATIONS)}; got '{normalization}'")
        self.in_channels = in_channels[0] if isinstance(in_channels, (tuple, list)) else in_channels
        self.out_channels = out_channels
        self.normalization = normalization
        self.act = activation_resolver(act) if act is not None else torch.nn.Identity()
        if self.in_channels < 0:
            self.weight = UninitializedParameter()
        else:
            self.weight = torch.nn.Parameter(torch.empty(self.in_channels, out_channels))
        self.register_load_state_dict_pre_hook(_materialize)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew (Xavier uniform)."""
        super().reset_parameters()
        if not isinstance(self.weight, UninitializedParameter):
            glorot(self.weight)

    def forward(
        self,
        x: Union[Tensor, OptPairTensor],
        edge_index: Union[Adj, NormalizedGraph],
        edge_weight: OptTensor = None,
        size: Size = None,
        degree: Optional[Tuple[Tensor, Tensor]] = None,
    ) -> Tensor:
        """Return the destination nodes' embeddings ``[V_dst, out]``.

        Args:
            x: source features, or a pair; see the class.
            edge_index: the edges; see the class.
            edge_weight: weights ``[E]``; only with a COO ``edge_index``.
            size: number of nodes on either side, ``(V_src, V_dst)``, in the order of ``edge_index``.
            degree: ``(deg_src, deg_dst)`` to normalise by instead of the degrees of ``edge_index``: those of the
                full graph, where ``edge_index`` is a sample of it.
        """
        if isinstance(x, Tensor):
            x = (x, x)
        j, i = (0, 1) if self.flow == 'source_to_target' else (1, 0)
        if isinstance(self.weight, UninitializedParameter):
            if x[j] is None:
                raise ValueError("'in_channels' must be the number of source nodes where they have no features")
            self.in_channels = x[j].size(-1)
            self.weight.materialize((self.in_channels, self.out_channels), device=x[j].device, dtype=x[j].dtype)
            self.reset_parameters()
        h = self.weight if x[j] is None else x[j] @ self.weight  # [V_src, out]
        num_source = h.size(0) if size is None or size[j] is None else size[j]
        if num_source != h.size(0):
            raise ValueError(f"'size' tells of {num_source} source nodes, but there are features (or, without "
                             f"features, rows of the weight) for {h.size(0)}")
        num_destination = None if x[i] is None else x[i].size(0)
        if size is not None and size[i] is not None:
            num_destination = size[i]
        norm = None
        if isinstance(edge_index, NormalizedGraph):
            if edge_weight is not None or degree is not None:
                raise ValueError("'edge_weight' and 'degree' are part of a prepared 'edge_index': give them to prepare")
            _check_destinations(edge_index.num_destination, num_destination)
            if self.aggr in ('sum', 'add') and self._fuses():
                return self.act(edge_index.matmul(h))
            num_destination, norm = edge_index.num_destination, edge_index.norm.to(h.dtype)
            pair = edge_index.col, edge_index.row
            edge_index = torch.stack([pair[j], pair[i]])
        elif is_sparse(edge_index):
            if isinstance(edge_index, SparseTensor):
                edge_index = edge_index.to_torch_sparse_csr_tensor(h.dtype)
            if edge_index.size(1) != num_source:
                raise ValueError(f"'edge_index' tells of {edge_index.size(1)} source nodes, but there are features "
                                 f"(or, without features, rows of the weight) for {num_source}")
            _check_destinations(edge_index.size(0), num_destination)
            num_destination = edge_index.size(0)
            _check_weight(edge_index, edge_weight)
            rowptr, row, col, norm = self._normalized(edge_index, degree, h.dtype)
            if self._fuses() or j == 1:  # PyG refuses a sparse tensor in the other flow
                edge_index = csr_tensor(rowptr, col, norm, (num_destination, num_source))
            else:
                edge_index = torch.stack([col, row])
        else:
            _check_weight(edge_index, edge_weight)
            if num_destination is None:
                raise ValueError("'size' is needed where the destination nodes have no features: pass "
                                 "size=(num_source, num_destination)")
            check_index('edge_index', edge_index, (num_source, num_destination) if j == 0 else
                        (num_destination, num_source))
            norm = self._norm(edge_index[j], edge_index[i], edge_weight, num_source, num_destination, degree, h.dtype)
            if self._sorts(edge_index, h, norm):
                value = h.new_ones(edge_index.size(1)) if norm is None else norm
                adj_t = _csr(edge_index[j], edge_index[i], value, num_source, num_destination)
                return self.act(NormalizedGraph(adj_t).matmul(h))
        # One tensor, not a pair: of a pair PyG takes the first entry as the sources, whatever the flow.
        out = self.propagate(edge_index, h=h, norm=norm, size=(
            (num_source, num_destination) if j == 0 else (num_destination, num_source)))
        return self.act(out)

    def prepare(self, edge_index: Adj, edge_weight: OptTensor = None, size: Optional[Tuple[int, int]] = None,
                degree: Optional[Tuple[Tensor, Tensor]] = None) -> NormalizedGraph:
        """Normalise and index a fixed graph once; the result goes in place of ``edge_index``.

        Args:
            edge_index: the edges, or the transposed adjacency as a sparse tensor; see the class.
            edge_weight: as in :meth:`forward`.
            size: number of nodes on either side ``(V_src, V_dst)``; needed with a COO ``edge_index``.
            degree: as in :meth:`forward`.

        Raises:
            ValueError: what :meth:`forward` raises it for, an aggregation other than the sum, or weights, values or
                degrees that require a gradient, which a graph of constants would not give.
        """
        if self.aggr not in ('sum', 'add'):
            raise ValueError(f"'aggr' must be sum for a prepared graph, got {self.aggr}: pass 'edge_index' as it is")
        _check_weight(edge_index, edge_weight)
        if isinstance(edge_index, SparseTensor):
            edge_index = edge_index.to_torch_sparse_csr_tensor()
        if not is_sparse(edge_index):
            if size is None:
                raise ValueError("'size' is needed to prepare a COO 'edge_index': pass (num_source, num_destination)")
            j, i = (0, 1) if self.flow == 'source_to_target' else (1, 0)
            check_index('edge_index', edge_index, size)
            if edge_weight is None:
                edge_weight = torch.ones(edge_index.size(1), device=edge_index.device)
            edge_index = _csr(edge_index[j], edge_index[i], edge_weight, size[j], size[i])
        dtype = torch.promote_types(torch.promote_types(edge_index.dtype, torch.float32), self.weight.dtype)
        rowptr, _, col, norm = self._normalized(edge_index, degree, dtype)
        graph = NormalizedGraph(csr_tensor(rowptr, col, norm, (edge_index.size(0), edge_index.size(1))))
        if graph.norm.requires_grad:
            raise ValueError("'edge_weight', the values of 'edge_index' or 'degree' require a gradient, which a "
                             "prepared graph does not give: pass 'edge_index' as it is, or detach them")
        return graph

    def correlate(self, code: Tensor, items: Tensor, edge_label_index: Tensor) -> Tensor:
        """Return the cross-correlation ``<code[u], items[i]>`` of given pairs ``[Q]``, differentiable in both.

        This is how the layer's output meets user codes: see :class:`~tvdiff_pyg.nn.CrossCorrelation`.

        Args:
            code: codes of the source side ``[B, d]``.
            items: codes of the destination side ``[V_dst, d]``, this layer's output say.
            edge_label_index: pairs ``[2, Q]``, in any order.
        """
        return CrossCorrelation()(code, items, edge_label_index)

    def message(self, h_j: Tensor, norm: OptTensor) -> Tensor:
        return h_j if norm is None else norm.unsqueeze(-1) * h_j

    def message_and_aggregate(self, adj_t: Adj, h: Tensor) -> Tensor:
        if adj_t.requires_grad or self.aggr not in ('sum', 'add') or h.device.type != 'cpu':
            return spmm(adj_t, h, reduce=self.aggr)
        return NormalizedGraph(adj_t).matmul(h)

    def _fuses(self) -> bool:
        """Tell whether a sparse tensor or a prepared graph is multiplied, instead of making messages of its edges."""
        return (self.fuse and not self.explain and self.aggr in ('sum', 'add', 'mean', 'min', 'max')
                and not transformed())

    def _sorts(self, edge_index: Tensor, h: Tensor, norm: OptTensor) -> bool:
        """Tell whether to sort the edges of this call and sum them as a sparse product, instead of scattering messages.

        ``benchmarks.backends`` measures both. Messages are made where somebody looks at them (hooks, explanations,
        subclasses), where weights want a gradient, for a compiler, which fuses them itself, and in transforms.
        """
        if torch.compiler.is_compiling() or h.device.type != 'cpu' or edge_index.size(1) * h.size(1) < SORT_FROM:
            return False
        seen = self.explain or self._message_forward_pre_hooks or self._message_forward_hooks or \
            self._aggregate_forward_pre_hooks or self._aggregate_forward_hooks or \
            self._propagate_forward_pre_hooks or self._propagate_forward_hooks
        return (type(self) is TVDiffConv and self.aggr in ('sum', 'add') and not seen
                and not (norm is not None and norm.requires_grad) and not transformed())

    def _norm(self, source: Tensor, destination: Tensor, weight: OptTensor, num_source: int, num_destination: int,
              degree: Optional[Tuple[Tensor, Tensor]], dtype: torch.dtype) -> OptTensor:
        a, b = NORMALIZATIONS[self.normalization]
        for vector, nodes, side in zip(degree or (), (num_source, num_destination), ('source', 'destination')):
            if vector.size() != (nodes,):
                raise ValueError(f"'degree' must hold one number a node: {nodes} {side} nodes, got {vector.numel()} of "
                                 f"shape {list(vector.shape)}")
        if a == b == 0:
            return weight if weight is None else weight.to(dtype)
        exact = torch.promote_types(dtype, torch.float32)  # half precision cannot count to a degree
        weight = torch.ones(source.numel(), dtype=exact, device=source.device) if weight is None else weight.to(exact)
        if degree is None:
            degree = (scatter(weight, source, dim_size=num_source, reduce='sum'),
                      scatter(weight, destination, dim_size=num_destination, reduce='sum'))
        for vector, exponent, side in zip(degree, (a, b), ('source', 'destination')):
            if exponent and readable(vector) and vector.detach().min() < 0:
                raise ValueError(f"degrees must be >= 0, but a {side} node's is {float(vector.detach().min())}: with "
                                 f"signed weights pass 'degree', the sums of their absolute values say")
        norm = weight * _power(degree[0].to(exact), -a)[source] * _power(degree[1].to(exact), -b)[destination]
        return norm.to(dtype)

    def _normalized(self, adj_t: Tensor, degree: Optional[Tuple[Tensor, Tensor]],
                    dtype: torch.dtype) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return a transposed adjacency's row pointers, destinations, sources and normalised values."""
        adj_t = adj_t if adj_t.layout == torch.sparse_csr else adj_t.to_sparse_csr()
        rowptr, col = adj_t.crow_indices(), adj_t.col_indices()
        row = torch.arange(adj_t.size(0), device=rowptr.device).repeat_interleave(rowptr.diff())
        norm = self._norm(col, row, adj_t.values(), adj_t.size(1), adj_t.size(0), degree, dtype)
        assert norm is not None
        return rowptr, row, col, norm

    def _save_to_state_dict(self, destination: Dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Give a weight that has no width yet as it is: there is nothing to detach."""
        super()._save_to_state_dict(destination, prefix, keep_vars or isinstance(self.weight, UninitializedParameter))

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.in_channels}, {self.out_channels}, '
                f'normalization={self.normalization})')


def _check_weight(edge_index: Adj, edge_weight: OptTensor) -> None:
    if isinstance(edge_index, Tensor) and edge_index.layout in (torch.sparse_bsr, torch.sparse_bsc):
        raise ValueError(f"'edge_index' must be COO, CSR or CSC where it is a sparse tensor, got {edge_index.layout}")
    if edge_weight is None:
        return
    if is_sparse(edge_index):
        raise ValueError("'edge_weight' goes with a COO 'edge_index'; a sparse tensor carries its own values")
    if edge_weight.size() != (edge_index.size(1),):
        raise ValueError(f"'edge_weight' must have shape [{edge_index.size(1)}], one weight an edge; "
                         f"got {list(edge_weight.shape)}")


def _check_destinations(rows: int, num_destination: Optional[int]) -> None:
    if num_destination is not None and rows != num_destination:
        raise ValueError(f"'edge_index' tells of {rows} destination nodes, but 'size' or their features tell of "
                         f"{num_destination}: make the sparse tensor, or the prepared graph, with all of them")


def _csr(source: Tensor, destination: Tensor, value: Tensor, num_source: int, num_destination: int) -> Tensor:
    """Return edges as a transposed adjacency ``[V_dst, V_src]``; repeated edges stay apart."""
    order = destination.argsort(stable=True)
    rowptr = cumsum(torch.bincount(destination, minlength=num_destination))
    return csr_tensor(rowptr, source[order], value[order], (num_destination, num_source))


def _materialize(module: TVDiffConv, state_dict: Dict[str, Any], prefix: str, *args: Any) -> None:
    """Let a lazy layer take the width of the weights that it is given."""
    weight = state_dict.get(f'{prefix}weight')
    if (isinstance(module.weight, UninitializedParameter) and isinstance(weight, Tensor)
            and not isinstance(weight, UninitializedParameter)):
        module.in_channels = weight.size(0)
        module.weight.materialize((weight.size(0), module.out_channels))


def _power(degree: Tensor, exponent: float) -> Tensor:
    zero = degree == 0
    return degree.masked_fill(zero, 1).pow(exponent).masked_fill(zero, 0)  # the first fill keeps gradients finite
