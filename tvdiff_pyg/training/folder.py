"""Run folders: what lies in one, the settings that its run was begun with, and its history."""
from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional

import yaml

from tvdiff_pyg.split import PROTOCOLS
from tvdiff_pyg.training.recipe import Recipe
from tvdiff_pyg.training.storage import TENSORS, TEXT

CONFIG, METRICS, WEIGHTS, LOG, PLOT = 'config.yaml', 'metrics.json', 'weights.safetensors', 'log.csv', 'training.png'
PER_USER = 'per_user.safetensors'  # the test part's metrics user by user: for paired tests
HASHED = (WEIGHTS, TENSORS, TEXT)
BEST, LAST = 'checkpoints/best.ckpt', 'checkpoints/last.ckpt'


class RunError(ValueError):
    """A run folder is missing, incomplete or in the way; the message says what to do."""


@dataclass
class Settings:
    """All that a run is begun with; what ``config.yaml`` holds, in the form that ``tvdiff fit --config`` reads.

    Attributes:
        recipe: the settings of data, model and training.
        protocol: ``holdout`` or ``paper``.
        seed: the run's seed.
        data_root: the folder that holds ``NAME/raw/``, if one was named.
    """

    recipe: Recipe
    protocol: str = 'holdout'
    seed: int = 0
    data_root: Optional[str] = None

    def check(self) -> None:
        """Raise ``ValueError`` for a protocol or a seed that cannot be."""
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"'protocol' must be one of {', '.join(PROTOCOLS)}; got '{self.protocol}'")
        if not 0 <= self.seed < 2 ** 63:
            raise ValueError(f"'seed' must lie in 0..2^63-1, got {self.seed}")

    def to_dict(self) -> Dict[str, Any]:
        """Return nested plain values."""
        return {'protocol': self.protocol, 'seed': self.seed, 'data_root': self.data_root, **self.recipe.to_dict()}


def same_split(rows: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether runs can be compared: whether they were trained and measured on the same parts of the same data.

    Args:
        rows: for each run its ``split_checksum`` and ``protocol``, as in ``metrics.json``.
    """
    return len({(row['split_checksum'], row['protocol']) for row in rows}) == 1


def read_settings(folder: Path) -> Settings:
    """Read a run folder's ``config.yaml``.

    Raises:
        RunError: it is missing, broken, or not a run's.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise RunError(f"{folder} is not a run folder (it has no {CONFIG}): make one with 'tvdiff fit --out {folder}'")
    try:
        values = yaml.safe_load(path.read_text(encoding='utf-8'))
        about = {name: values.pop(name) for name in ('protocol', 'seed', 'data_root')}
        settings = Settings(Recipe.from_dict(values), **about)
        settings.check()
    except (yaml.YAMLError, OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} is not a run's ({' '.join(str(error).split())}): restore it, or train anew") from error
    return settings


def read_history(folder: Path) -> List[Dict[str, float]]:
    """Read a run folder's ``log.csv``, a row an epoch; empty where there is none."""
    if not (folder / LOG).is_file():
        return []
    with open(folder / LOG, encoding='utf-8') as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
