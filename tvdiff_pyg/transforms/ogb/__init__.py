"""Interaction graphs to and from the format of the Open Graph Benchmark (OGB), and its link evaluator on our scores.

ogb is an extra and is imported only by what needs it; so is this module: ``from tvdiff_pyg.transforms.ogb import ...``.
"""
from tvdiff_pyg.transforms.ogb.evaluator import PairScorer, evaluate_ogb, pair_scorer
from tvdiff_pyg.transforms.ogb.files import from_ogb, load_ogb, to_ogb

__all__ = [
    'PairScorer',
    'evaluate_ogb',
    'from_ogb',
    'load_ogb',
    'pair_scorer',
    'to_ogb',
]
