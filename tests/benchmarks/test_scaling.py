"""The scaling benchmark, small."""
from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip('pytorch_lightning')
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks import scaling  # noqa: E402


def test_the_graph_is_skewed_and_of_the_size_it_says() -> None:
    graph = scaling.power_law_graph(2000, torch.Generator().manual_seed(0))
    assert (graph.num_users, graph.num_items) == (2000, 2000)
    assert 0.9 * 40_000 < graph.num_interactions <= 40_000  # repeated pairs count once
    degree = graph.item_degree
    assert degree[:20].sum() > 5 * degree[1000:1020].sum()


@pytest.mark.parametrize('engine', scaling.ENGINES)
def test_a_point(engine: str) -> None:
    row = scaling.measure(3000, 8, engine, repeat=1)
    assert row['size'] == 3000 and row['engine'] == engine and 0 < row['step_s'] < 60
    assert row['peak_rss_mb'] > 100  # of the whole process, torch included
