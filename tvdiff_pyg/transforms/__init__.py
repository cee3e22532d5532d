"""Transforms of interaction graphs."""
from __future__ import annotations

from tvdiff_pyg.transforms.edge_types import RATED_BY, RATES
from tvdiff_pyg.transforms.hold_out import HoldOut, hold_out_mask

__all__ = ['HoldOut', 'RATED_BY', 'RATES', 'hold_out_mask']
