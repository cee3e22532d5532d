"""The machine and the packages that a result comes from."""
from __future__ import annotations

import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Dict, Optional

import tvdiff_pyg


def peak_rss_mb() -> float:
    """Return the process's largest resident set so far, in MB (10^6 bytes)."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil  # torch-geometric needs it anyway

        return psutil.Process().memory_info().peak_wset / 1e6
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


@cache
def commit(package: Path = Path(tvdiff_pyg.__file__).parent) -> Optional[str]:
    """Return the commit that a package lies in a checkout of, with '-dirty' where it was edited; ``None`` elsewhere."""
    if not (package.parent / '.git').exists():
        return None
    call = ['git', '-C', str(package), 'describe', '--always', '--dirty', '--abbrev=12', '--exclude=*']
    try:
        return subprocess.run(call, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):  # no git, or not its owner
        return None


def versions() -> Dict[str, str]:
    """Return the versions that a result depends on, and the commit where this package is a checkout."""
    packages = ('torch', 'torch-geometric', 'pytorch-lightning', 'numpy')
    own = commit()
    return {'tvdiff-pyg': tvdiff_pyg.__version__, **({'commit': own} if own else {}),
            'python': platform.python_version(), **{name: version(name) for name in packages}}
