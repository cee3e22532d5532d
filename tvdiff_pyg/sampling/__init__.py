"""Negative samplers (view III and its controls)."""
from tvdiff_pyg.sampling.ar_gsp import ARGumbelSampler
from tvdiff_pyg.sampling.base import NegativeSampler, dense_scores, draw_unobserved, first_per_row, top_per_row
from tvdiff_pyg.sampling.popularity import PopularitySampler
from tvdiff_pyg.sampling.uniform import UniformSampler
from tvdiff_pyg.sampling.warm_up import WarmUpSampler

__all__ = [
    'NegativeSampler',
    'ARGumbelSampler',
    'UniformSampler',
    'PopularitySampler',
    'WarmUpSampler',
    'dense_scores',
    'draw_unobserved',
    'first_per_row',
    'top_per_row',
]
