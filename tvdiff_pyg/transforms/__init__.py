"""Transforms of interaction graphs."""
from __future__ import annotations

from tvdiff_pyg.transforms.edge_types import RATED_BY, RATES
from tvdiff_pyg.transforms.hold_out import HoldOut, hold_out_mask
from tvdiff_pyg.transforms.k_core import k_core_mask
from tvdiff_pyg.transforms.split import leave_one_out_parts, temporal_parts

__all__ = ['HoldOut', 'RATED_BY', 'RATES', 'hold_out_mask', 'k_core_mask', 'leave_one_out_parts', 'temporal_parts']
