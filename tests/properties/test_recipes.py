"""Generated settings: right ones are taken, wrong ones refused in one line."""
from __future__ import annotations

from dataclasses import fields
from typing import Any, Dict

import pytest

pytest.importorskip('hypothesis')
pytest.importorskip('pytorch_lightning')
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from tvdiff_pyg.training import Recipe  # noqa: E402
from tvdiff_pyg.training.recipe import MODELS  # noqa: E402

many = settings.get_profile('many')
GROUPS = {group.name: [setting.name for setting in fields(type(getattr(Recipe(), group.name)))]
          for group in fields(Recipe)}
WORDS = ['tv-diff', 'ar-gsp', 'bce', 'sum', 'cosine', 'eps', 'dense', 'none', 'lastfm', 'interaction-file', 'nope', '',
         *MODELS]
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(-2 ** 65, 2 ** 65), st.integers(-2, 5), st.floats(),
                  st.sampled_from(WORDS), st.lists(st.integers(-1, 40), max_size=3), st.text(max_size=5),
                  st.dictionaries(st.text(max_size=3), st.integers(), max_size=2))
NAMES = {group: st.sampled_from([*names, 'nope', '']) for group, names in GROUPS.items()}
RECIPES = st.fixed_dictionaries({}, optional={
    **{group: st.one_of(st.dictionaries(names, PLAIN, max_size=4), PLAIN) for group, names in NAMES.items()},
    'nope': PLAIN})


@many
@given(RECIPES)
def test_any_values(values: Dict[str, Any]) -> None:
    try:
        recipe = Recipe.from_dict(values)
    except ValueError as error:
        assert str(error) and '\n' not in str(error), repr(str(error))
        return
    assert Recipe.from_dict(recipe.to_dict()) == recipe
