"""TV-Diff, a tri-view diffusion recommender, on PyTorch Geometric."""

__version__ = '0.1.0.dev0'
