"""Recommenders."""
from tvdiff_pyg.nn.models.ease import EASE
from tvdiff_pyg.nn.models.popularity import Popularity
from tvdiff_pyg.nn.models.tvdiff import TVDiff

__all__ = ['TVDiff', 'EASE', 'Popularity']
