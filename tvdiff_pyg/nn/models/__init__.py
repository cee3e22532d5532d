"""Recommenders."""
from tvdiff_pyg.nn.models.diffrec import DiffRec
from tvdiff_pyg.nn.models.ease import EASE
from tvdiff_pyg.nn.models.gf_cf import GFCF
from tvdiff_pyg.nn.models.ials import IALS
from tvdiff_pyg.nn.models.item_knn import ItemKNN
from tvdiff_pyg.nn.models.lightgcn import LightGCN
from tvdiff_pyg.nn.models.popularity import Popularity
from tvdiff_pyg.nn.models.tvdiff import TVDiff

__all__ = ['TVDiff', 'DiffRec', 'LightGCN', 'EASE', 'GFCF', 'IALS', 'ItemKNN', 'Popularity']
