"""TV-Diff, a tri-view diffusion recommender, on PyTorch Geometric."""
from __future__ import annotations

from importlib import import_module
from types import ModuleType

__version__ = '0.1.0'

_PARTS = ('datasets', 'diffusion', 'evaluation', 'nn', 'retrieval', 'sampling', 'testing', 'thermodynamics', 'training',
          'transforms')


def __getattr__(name: str) -> ModuleType:
    """Import ``tvdiff_pyg.nn`` and its siblings when they are first asked for: not all need the same packages."""
    if name in _PARTS:
        return import_module(f'{__name__}.{name}')
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
