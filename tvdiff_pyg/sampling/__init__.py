"""Negative samplers (view III and its controls)."""
from tvdiff_pyg.sampling.ar_gsp import ARGumbelSampler
from tvdiff_pyg.sampling.base import NegativeSampler, dense_scores
from tvdiff_pyg.sampling.popularity import PopularitySampler
from tvdiff_pyg.sampling.uniform import UniformSampler

__all__ = ['NegativeSampler', 'ARGumbelSampler', 'UniformSampler', 'PopularitySampler', 'dense_scores']
