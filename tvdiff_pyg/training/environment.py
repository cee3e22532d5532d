"""The machine and the packages that a result comes from."""
from __future__ import annotations

import platform
import sys
from importlib.metadata import version
from typing import Dict

from tvdiff_pyg import __version__


def peak_rss_mb() -> float:
    """Return the process's largest resident set so far, in MB (10^6 bytes)."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil  # torch-geometric needs it anyway

        return psutil.Process().memory_info().peak_wset / 1e6
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def versions() -> Dict[str, str]:
    """Return the versions that a result depends on."""
    packages = ('torch', 'torch-geometric', 'pytorch-lightning', 'numpy')
    return {'tvdiff-pyg': __version__, 'python': platform.python_version(),
            **{name: version(name) for name in packages}}
