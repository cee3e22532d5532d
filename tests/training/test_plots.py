"""What the plots of a training say of each model."""
from __future__ import annotations

from typing import Any, List

import pytest

pytest.importorskip('pytorch_lightning')
pytest.importorskip('matplotlib')
from tvdiff_pyg.training import ModelConfig, Recipe  # noqa: E402
from tvdiff_pyg.training.plots import LOSS_TERMS, training_figure  # noqa: E402
from tvdiff_pyg.training.recipe import MODELS  # noqa: E402

HISTORY = [{'epoch': epoch, 'energy': 3.0 - epoch, 'entropy': -0.5 * epoch, 'validation/recall@20': 0.1 * epoch}
           for epoch in range(3)]


def test_every_model_that_trains_has_names_for_its_loss() -> None:
    assert set(LOSS_TERMS) == {name for name, model in MODELS.items() if 'training' in model.others}


@pytest.mark.parametrize('name, title, labels', [
    ('tv-diff', 'free energy, temperature 2', ['energy E', r'entropy term $-\tau S$']),
    ('diffrec', 'loss', ['reconstruction error']),
    ('lightgcn', 'loss terms', ['regulariser', 'negative log-likelihood']),
    ('bpr-mf', 'loss terms', ['regulariser', 'negative log-likelihood']),
])
def test_the_terms_are_named_as_the_model_has_them(name: Any, title: str, labels: List[str]) -> None:
    recipe = Recipe(model=ModelConfig(name=name))
    if name == 'tv-diff':
        recipe.loss.temperature = 2.0
    left, right, *twin = training_figure(HISTORY, 2, 'validation', recipe).axes
    assert left.get_title() == title and right.get_title() == 'selected on validation'
    assert [axes.get_ylabel() for axes in (left, *twin)] == labels
    drawn = [axes.lines[0].get_ydata().tolist() for axes in (left, *twin)]
    assert drawn == [[3, 2, 1], [0, 0.5 * recipe.loss.temperature, recipe.loss.temperature]][:len(labels)]
