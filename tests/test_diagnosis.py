"""Signatures of failure in histories that were made up to lie on either side of each rule."""
import math
import re

import pytest

from tvdiff_pyg.diagnosis import diagnose, diagnose_all, diverged
from tvdiff_pyg.training.recipe import MODELS, ModelConfig, Recipe

METRIC = 'validation/recall@20'


def history(epochs=20, **columns):
    """A training that goes well, but for some columns, given as functions of the epoch."""
    well = {'loss': lambda e: 100 + 50 * math.exp(-e / 5), 'energy': lambda e: 0.01 + 0.01 * math.exp(-e / 5),
            'entropy': lambda e: -0.02 - 0.01 * math.exp(-e / 5), METRIC: lambda e: 0.2 * (1 - math.exp(-(e + 1) / 5)),
            'uniformity': lambda e: 0.8, 'similarity': lambda e: 0.6, 'false_negatives': lambda e: 0.01,
            'false_negatives_by_chance': lambda e: 0.001, **columns}
    return [{'epoch': epoch, **{name: value(epoch) for name, value in well.items()}} for epoch in range(epochs)]


def names(rows, temperature=1.0):
    return [diagnosis.name for diagnosis in diagnose(rows, METRIC, temperature)]


def test_nothing_is_said_of_a_training_that_goes_well():
    assert names(history()) == names(history(5)) == names(history(1)) == names([]) == []


@pytest.mark.parametrize('rise, expected', [(0.2, []), (0.3, ['divergence'])])
def test_divergence(rise, expected):
    assert names(history(loss=lambda e: 100 + 100 * rise * e / 19)) == expected


def test_a_loss_that_rises_by_less_than_it_fell_has_not_diverged():
    assert names(history(loss=lambda e: 100 * abs(e - 10))) == []
    assert names(history(loss=lambda e: 100 * (6 - e if e < 6 else 2 * (e - 6)))) == ['divergence']


def wave(size, around):
    return lambda e: around * (1 + size * (1, 0.2, -1, -0.2)[e % 4])


@pytest.mark.parametrize('energy, entropy, expected', [
    (wave(0.1, 0.01), wave(0.05, -0.02), []),  # -tau S = 0.02 (1 + ...): they rise and fall together
    (wave(0.1, 0.01), wave(-0.05, -0.02), ['oscillation']),
    (wave(0.02, 0.01), wave(-0.04, -0.02), []),  # the energy too little, of what is minimised
    (wave(0.2, 0.01), wave(-0.01, -0.02), []),  # the entropy term too little
    (lambda e: 0.01 + 0.0005 * e, lambda e: -0.02 + 0.0005 * e, []),  # one gives way to the other, once
])
def test_oscillation(energy, entropy, expected):
    assert names(history(energy=energy, entropy=entropy)) == expected
    assert names(history(11, energy=energy, entropy=entropy)) == []  # not long enough


def test_no_entropy_term_does_not_swing():
    assert names(history(energy=wave(0.1, 0.01), entropy=lambda e: 0.0)) == []
    assert names(history(energy=wave(0.1, 0.01), entropy=wave(-0.1, -0.02)), temperature=0.0) == []


@pytest.mark.parametrize('best, last, expected', [
    (5, 0.16, ['over-fitting']), (5, 0.18, []), (15, 0.16, []),
])
def test_recall_collapse(best, last, expected):
    rows = history(**{METRIC: lambda e: 0.2 * (e + 1) / (best + 1) if e <= best else last})
    assert names(rows) == expected


@pytest.mark.parametrize('drawn, chance, name, shown', [
    (0.03, 0.002, 'recall collapse', '3.00%'), (0.03, 0.015, 'over-fitting', ''),
    (0.01, 0.0001, 'over-fitting', '1.00%'), (math.nan, math.nan, 'over-fitting', ''),
])
def test_what_falls_by_false_negatives_and_what_by_over_fitting(drawn, chance, name, shown):
    rows = history(**{METRIC: lambda e: 0.2 - 0.01 * e, 'false_negatives': lambda e: drawn,
                      'false_negatives_by_chance': lambda e: chance})
    found, = diagnose(rows, METRIC)
    assert found.name == name and 'was 0.2000 in epoch 0 and is 0.0100 in epoch 19' in found.saw
    assert ('sampler.gamma' in found.change) == (drawn > 3 * chance)
    assert shown in found.saw and ('held-out' in found.saw) == bool(shown)


def test_columns_that_were_not_watched_are_not_missed():
    rows = [{name: value for name, value in row.items() if name in ('epoch', 'loss', 'energy', 'entropy', METRIC)}
            for row in history(**{METRIC: lambda e: 0.2 - 0.01 * e})]
    assert names(rows) == ['over-fitting']


@pytest.mark.parametrize('similarity, expected', [(0.96, []), (math.nan, []), (0.98, ['scores alike'])])
def test_scores_alike(similarity, expected):
    assert names(history(similarity=lambda e: similarity)) == expected


@pytest.mark.parametrize('uniformity, expected', [(0.96, []), (math.nan, []), (0.98, ['near-uniform scores'])])
def test_near_uniform_scores(uniformity, expected):
    assert names(history(uniformity=lambda e: uniformity)) == expected


def test_a_softmax_on_its_way_from_uniformity_is_not_stuck():
    assert diagnose_all(history(uniformity=lambda e: 1 - 0.004 * e), METRIC) == []
    assert len(diagnose_all(history(uniformity=lambda e: 1 - 0.001 * e), METRIC)) == 1


@pytest.mark.parametrize('change, expected', [(0.02, []), (0.005, ['flat loss'])])
def test_flat_loss(change, expected):
    assert names(history(loss=lambda e: -100 * (1 + change * e / 19))) == expected


def test_in_words():
    found = diverged('the loss became nan in epoch 3')
    assert str(found) == ('divergence: the loss became nan in epoch 3. Likely cause: steps or noise too large. Try: a '
                          'lower training.lr, loss.temperature or diffusion.scale, in another folder.')
    assert list(found.to_dict()) == ['name', 'saw', 'cause', 'change']


@pytest.mark.parametrize('columns, settings, change', [
    ({'loss': lambda e: 100 + 5 * e}, ['training.lr'], 'a lower training.lr, in another folder'),
    ({'loss': lambda e: 100 + 5 * e}, ['training.lr', 'diffusion.scale'],
     'a lower training.lr or diffusion.scale, in another folder'),
    ({'loss': lambda e: 1.0}, ['training.lr'], 'a larger training.lr'),
    ({'uniformity': lambda e: 0.99}, None, 'a larger training.lr'),
    ({'similarity': lambda e: 0.99}, ['training.lr'], 'a larger training.lr'),
    ({'similarity': lambda e: 0.99}, None, 'fewer model.num_layers, or a larger training.lr'),
    ({METRIC: lambda e: 0.2 - 0.01 * e}, ['training.lr', 'model.regularization', 'training.average'],
     'a lower training.lr, or more model.regularization, or some training.average'),
    ({'energy': wave(0.1, 0.01), 'entropy': wave(-0.05, -0.02)}, ['training.lr'], 'a lower training.lr'),
])
def test_advice_names_only_settings_that_the_model_has(columns, settings, change):
    for found in (diagnose(history(**columns), METRIC, 1.0, settings),
                  diagnose_all(history(**columns), METRIC, 1.0, settings)):
        assert [diagnosis.change for diagnosis in found] == [change]


@pytest.mark.parametrize('model', [name for name, model in MODELS.items() if 'training' in model.others])
def test_every_model_that_trains_has_something_to_change(model):
    settings = Recipe(model=ModelConfig(model)).settings()
    assert {'training.lr', 'training.average'} <= {*settings} and 'model.name' in settings
    assert ('loss.temperature' in settings) == ('sampler.lam' in settings and 'diffusion' in MODELS[model].others)
    for columns in ({'loss': lambda e: 100 + 5 * e}, {'loss': lambda e: 1.0}, {'uniformity': lambda e: 0.99},
                    {'similarity': lambda e: 0.99}, {METRIC: lambda e: 0.2 - 0.01 * e}):
        found, = diagnose(history(**columns), METRIC, 1.0, settings)
        named = re.findall(r'[a-z]+\.[a-z_]+', found.change)
        assert named and {*named} <= {*settings}, found


def test_what_has_passed_is_not_forgotten() -> None:
    rows = history(40, energy=lambda e: wave(0.1, 0.01)(e) if e < 20 else 0.01,
                   entropy=lambda e: wave(-0.05, -0.02)(e) if e < 20 else -0.02,
                   uniformity=lambda e: 0.99 if e < 8 else 0.8)
    assert names(rows) == []
    found = diagnose_all(rows, METRIC)
    assert [diagnosis.name for diagnosis in found] == ['near-uniform scores', 'oscillation']
    assert diagnose_all(rows[:4], METRIC) == []
