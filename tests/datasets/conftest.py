"""What several tests of data sets look at."""
from __future__ import annotations

from pathlib import Path
from typing import Callable

import pytest


@pytest.fixture
def snapshot() -> Callable[[Path], list[tuple[str, int, int]]]:
    def _snapshot(folder: Path) -> list[tuple[str, int, int]]:
        return sorted((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob('*'))

    return _snapshot
