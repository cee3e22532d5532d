"""The two edge types of an interaction graph, named once."""
from __future__ import annotations

from typing import Tuple

RATES: Tuple[str, str, str] = ('user', 'rates', 'item')
RATED_BY: Tuple[str, str, str] = ('item', 'rated_by', 'user')
