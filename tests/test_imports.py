"""Imports run one way, as setup.cfg and docs/design.md have it, and the library leaves the heavy packages alone."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SETUP = Path(__file__).resolve().parents[1] / 'setup.cfg'


def test_imports_run_one_way(capsys: pytest.CaptureFixture) -> None:
    linter = pytest.importorskip(
        'importlinter.cli', reason="import-linter is not installed: pip install 'tvdiff-pyg[test]'")
    assert linter.lint_imports(config_filename=str(SETUP), no_cache=True, no_logo=True) == 0, capsys.readouterr().out


@pytest.mark.parametrize('names', [
    'tvdiff_pyg', 'tvdiff_pyg.nn, tvdiff_pyg.sampling, tvdiff_pyg.diffusion, tvdiff_pyg.datasets'])
def test_the_library_loads_nothing_of_the_extras(names: str) -> None:
    """Beyond what PyG loads itself, where these are installed."""
    code = (f'import sys, torch_geometric; theirs = set(sys.modules); import {names}\n'
            "print(sorted({'pytorch_lightning', 'jsonargparse', 'matplotlib', 'scipy'} & (set(sys.modules) - theirs)))")
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout == '[]\n', done.stderr
