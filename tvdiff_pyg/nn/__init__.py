"""Layers, the denoiser, the loss and the models."""
from tvdiff_pyg.nn.conv import TVDiffConv
from tvdiff_pyg.nn.cross_correlation import CrossCorrelation
from tvdiff_pyg.nn.denoiser import AnisotropicDenoiser
from tvdiff_pyg.nn.loss import BCEEntropy, BPREntropy, EntropyTerm, HelmholtzFreeEnergy, NLLEntropy, dense_energy
from tvdiff_pyg.nn.models import EASE, GFCF, IALS, DiffRec, ItemKNN, LightGCN, Popularity, TVDiff
from tvdiff_pyg.nn.mlp_denoiser import MLPDenoiser
from tvdiff_pyg.nn.time_embedding import TimeEmbedding

__all__ = [
    'TVDiffConv',
    'CrossCorrelation',
    'TimeEmbedding',
    'AnisotropicDenoiser',
    'MLPDenoiser',
    'HelmholtzFreeEnergy',
    'EntropyTerm',
    'BCEEntropy',
    'NLLEntropy',
    'BPREntropy',
    'dense_energy',
    'TVDiff',
    'DiffRec',
    'LightGCN',
    'EASE',
    'GFCF',
    'IALS',
    'ItemKNN',
    'Popularity',
]
