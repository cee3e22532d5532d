"""Training into a run folder."""
from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Callable, Dict, Tuple

import pytest
import torch

pytest.importorskip('pytorch_lightning')
from tvdiff_pyg.cli import DIVERGED, main  # noqa: E402
from tvdiff_pyg.diagnosis import Diagnosis, diverged  # noqa: E402
from tvdiff_pyg.evaluation import Evaluation, RankingEvaluator  # noqa: E402
from tvdiff_pyg.nn import TVDiff  # noqa: E402
from tvdiff_pyg.training import Recipe, Run, RunError, TrainingDiverged, fit, fitting  # noqa: E402
from tvdiff_pyg.training.describe import describe_run  # noqa: E402
from tvdiff_pyg.training.module import RecommenderModule  # noqa: E402
from tvdiff_pyg.training.optimizer import RowLazyAdam  # noqa: E402
from tvdiff_pyg.training.folder import LAST  # noqa: E402
from tvdiff_pyg.training.report import write_report  # noqa: E402
from tvdiff_pyg.typing import Batch, LossTerms, Scorer  # noqa: E402


def _recipe(ratings_file: Path, **training: Any) -> Recipe:
    values: Dict[str, Any] = {'max_epochs': 3, 'batch_size': 16, 'ks': [20], **training}
    return Recipe.from_dict({'dataset': {'name': 'interaction-file', 'path': str(ratings_file)},
                             'model': {'hidden_channels': 8}, 'training': values})


def test_a_run_read_back_is_the_run_that_was_fitted(ratings_file: Path, tmp_path: Path) -> None:
    fitted = fit(_recipe(ratings_file), tmp_path / 'run', progress=False)
    read = Run.load(tmp_path / 'run')
    assert read.metrics == fitted.metrics and read.recipe == fitted.recipe
    users = fitted.split.data.user_id[:3]
    assert read.recommend(users, 5) == fitted.recommend(users, 5)
    assert read.evaluate('test').mean == fitted.metrics['test']
    assert read.evaluate('validation').mean == fitted.metrics['validation']


def test_ids_are_lists_of_text(run_folder: Path) -> None:
    run = Run.load(run_folder)
    calls: Dict[str, Callable[[Any], Any]] = {
        'users': lambda ids: run.recommend(ids, 2),
        r'histories\[1\]': lambda ids: run.recommend_history([['item, 01'], ids]),
        'allow': lambda ids: run.recommend(['u01'], 2, allow=ids),
        'deny': lambda ids: run.recommend(['u01'], 2, deny=ids)}
    for argument, call in calls.items():
        for ids, got in (('17', "'17'"), (17, '17')):
            with pytest.raises(ValueError, match=fr"'{argument}' must be a list of ids, got {got}: write \['17'\]"):
                call(ids)
        with pytest.raises(ValueError, match=f"'{argument}' holds 17, but ids are text: write '17'"):
            call([17])


def test_the_weights_are_those_of_the_best_epoch(ratings_file: Path, tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is spoilt after its second epoch: selection must go back, and patience must stop it."""
    calls = []
    loss = TVDiff.training_loss

    def spoilt(self: TVDiff, batch: Batch, generator: Any = None) -> LossTerms:
        calls.append(batch)
        if len(calls) > 6:  # three batches an epoch
            with torch.no_grad():
                self.denoiser.item_weight.zero_()
        return loss(self, batch, generator)

    monkeypatch.setattr(TVDiff, 'training_loss', spoilt)
    run = fit(_recipe(ratings_file, max_epochs=30, patience=2), tmp_path / 'run', progress=False)
    assert run.metrics['epoch'] <= 1 and run.metrics['stopped'] == 'patience'
    assert run.metrics['epochs'] <= run.metrics['epoch'] + 1 + 2 + 1
    assert float(run.model.denoiser.item_weight.detach().abs().sum()) > 1


@pytest.fixture
def diverging(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets the loss be nan after so many batches, of which an epoch has three."""
    calls = []
    loss = TVDiff.training_loss

    def after(batches: int) -> None:
        calls.clear()

        def spoilt(self: TVDiff, batch: Batch, generator: Any = None) -> LossTerms:
            calls.append(batch)
            terms = loss(self, batch, generator)
            return terms if len(calls) <= batches else terms._replace(loss=terms.loss * float('nan'))

        monkeypatch.setattr(TVDiff, 'training_loss', spoilt)

    return after


def test_a_training_that_diverges_is_finished_from_the_best_epoch_before(
        diverging: Callable[[int], None], ratings_file: Path, tmp_path: Path) -> None:
    short = fit(_recipe(ratings_file, max_epochs=2), tmp_path / 'short', progress=False)
    diverging(7)
    with pytest.raises(TrainingDiverged, match=r'became nan in epoch 2: try a lower training.lr.*; the best epoch '
                                               r'before it, \d, is kept in the run') as caught:
        fit(_recipe(ratings_file), tmp_path / 'run', progress=False)
    run = Run.load(tmp_path / 'run')
    assert run.metrics['stopped'] == 'diverged' and run.metrics['diagnoses'] == [caught.value.diagnosis.to_dict()]
    for name in ('epoch', 'epochs', 'test', 'validation'):
        assert run.metrics[name] == short.metrics[name], name
    assert run.recommend(['u03'], 5) == short.recommend(['u03'], 5)
    assert run.evaluate().mean == run.metrics['test'] and (tmp_path / 'run' / 'training.png').is_file()
    assert ' of 0..1, selected on validation, DIVERGED in epoch 2\n' in describe_run(run.metrics)
    again = fit(_recipe(ratings_file, max_epochs=9), tmp_path / 'run', resume=True, progress=False)
    assert again.metrics == run.metrics
    write_report([tmp_path / 'run'], tmp_path / 'report.html')
    page = (tmp_path / 'report.html').read_text(encoding='utf-8')
    assert page.count('<b>divergence</b>: the loss became nan in epoch 2') == 1 and 'DIVERGED in epoch 2' in page


def test_a_run_that_diverged_half_finished_is_finished_when_resumed(
        diverging: Callable[[int], None], ratings_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several processes leave such a run, and so does a kill."""
    with monkeypatch.context() as patch:
        patch.setattr(fitting, 'world_size', lambda: 2)
        patch.setattr(fitting, '_check_processes', lambda *options: None)
        diverging(5)
        with pytest.raises(TrainingDiverged, match='epoch 1: .*; resumed by one process, without torchrun, the run is '
                                                   'finished'):
            fit(_recipe(ratings_file, num_parts=2), tmp_path / 'run', progress=False)
    assert not (tmp_path / 'run' / 'metrics.json').exists()
    diverging(1)
    with pytest.raises(TrainingDiverged, match='epoch 1: .*; the best epoch before it, 0, is kept'):
        fit(_recipe(ratings_file, num_parts=2), tmp_path / 'run', resume=True, progress=False)
    assert Run.load(tmp_path / 'run').metrics['stopped'] == 'diverged'


def test_a_rising_loss_that_ends_in_nan_is_one_diagnosis(
        diverging: Callable[[int], None], ratings_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rising, other = diverged('the loss has risen'), Diagnosis('flat loss', 'it', 'was', 'flat')
    monkeypatch.setattr(fitting, 'diagnose_all', lambda *history: [rising, other])
    diverging(3)
    with pytest.raises(TrainingDiverged):
        fit(_recipe(ratings_file), tmp_path / 'run', progress=False)
    first, second = Run.load(tmp_path / 'run').metrics['diagnoses']
    assert first['saw'] == 'the loss became nan in epoch 1' and second == other.to_dict()


def test_a_training_that_diverges_at_once_leaves_no_run(
        diverging: Callable[[int], None], ratings_file: Path, tmp_path: Path) -> None:
    diverging(1)
    with pytest.raises(TrainingDiverged, match='became nan in epoch 0.*; there is no epoch before it to keep'):
        fit(_recipe(ratings_file), tmp_path / 'run', progress=False)
    with pytest.raises(RunError, match='has not finished'):
        Run.load(tmp_path / 'run')


def test_a_run_that_went_on_and_was_stopped_at_its_end_goes_on_again(ratings_file: Path, tmp_path: Path,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """After its new weights were written, before its new metrics were."""
    whole = fit(_recipe(ratings_file, max_epochs=4), tmp_path / 'whole', progress=False)
    fit(_recipe(ratings_file, max_epochs=2), tmp_path / 'run', progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(fitting, 'save_figure', lambda *_: (_ for _ in ()).throw(OSError(28, 'No space left on device')))
        with pytest.raises(OSError, match='No space left'):
            fit(_recipe(ratings_file, max_epochs=4), tmp_path / 'run', resume=True, progress=False)
    with pytest.raises(RunError, match="has not finished: go on with 'tvdiff fit --resume"):
        Run.load(tmp_path / 'run')
    with pytest.raises(RunError, match='has trained 4 epochs already: training.max_epochs must be at least that'):
        fit(_recipe(ratings_file, max_epochs=3), tmp_path / 'run', resume=True, progress=False)
    checkpoint = torch.load(tmp_path / 'run' / LAST, weights_only=True)
    assert checkpoint['device'] == 'cpu'
    torch.save({**checkpoint, 'device': 'cuda'}, tmp_path / 'run' / LAST)  # nothing is left to train, elsewhere
    again = fit(_recipe(ratings_file, max_epochs=4), tmp_path / 'run', resume=True, progress=False)
    assert again.metrics['test'] == whole.metrics['test'] and again.metrics['files'] == whole.metrics['files']
    assert again.metrics['device'] == whole.metrics['device'].replace('cpu', 'cuda')


def test_a_training_leaves_torch_as_it_was(ratings_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flags() -> Tuple[bool, bool, bool]:
        return (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled(),
                torch.utils.deterministic.fill_uninitialized_memory)

    seen, loss = [], TVDiff.training_loss

    def watch(self: TVDiff, batch: Batch, generator: Any = None) -> LossTerms:
        seen.append(flags())
        return loss(self, batch, generator)

    monkeypatch.setattr(TVDiff, 'training_loss', watch)
    before, state = flags(), torch.get_rng_state()
    run = fit(_recipe(ratings_file, max_epochs=1), tmp_path / 'run', progress=False)
    assert set(seen) == {(True, True, False)} and flags() == before
    Run.load(run.folder)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize('thermo_users', [0, 40])
def test_scores_that_overflow_are_a_divergence_with_advice_for_the_model(ratings_file: Path, tmp_path: Path,
                                                                         thermo_users: int) -> None:
    training = {'lr': 1e25, 'thermo_users': thermo_users, 'ks': [20]}  # one step a batch: every weight stays finite
    recipe = Recipe.from_dict({'dataset': {'name': 'interaction-file', 'path': str(ratings_file)},
                               'model': {'name': 'bpr-mf'}, 'training': training})
    with pytest.raises(TrainingDiverged, match=r'a score is no longer finite in epoch 0: try a lower training\.lr, in '
                                               r'another folder; there is no epoch') as caught:
        fit(recipe, tmp_path / 'run', progress=False)
    assert caught.value.diagnosis.change == 'a lower training.lr, in another folder'  # no temperature, no noise


@pytest.mark.parametrize('batches, expected', [(4, 'is kept in the run'), (0, 'there is no epoch before it to keep')])
def test_the_command_line_ends_a_divergence_with_a_status_of_its_own(
        batches: int, expected: str, diverging: Callable[[int], None], fit_options: Callable[..., list], tmp_path: Path,
        capsys: pytest.CaptureFixture) -> None:
    diverging(batches)
    with pytest.raises(SystemExit) as caught:
        main(fit_options('--out', str(tmp_path / 'run')))
    line, = capsys.readouterr().err.splitlines()
    assert caught.value.code == DIVERGED == 3
    assert line.startswith('tvdiff: error: the loss became nan in epoch') and line.endswith(expected)
    assert (tmp_path / 'run' / 'metrics.json').is_file() == (batches > 0)


def test_a_catalogue_that_cannot_be_selected_on_is_refused(tmp_path: Path) -> None:
    file = tmp_path / 'few.csv'
    file.write_text('user,item\n' + ''.join(f'u{u},i{i}\n' for u in range(5) for i in range(8)))
    with pytest.raises(ValueError, match='has 8 items.*needs at least 20'):
        fit(_recipe(file), tmp_path / 'run', progress=False)
    assert not (tmp_path / 'run').exists()


def test_k_above_the_catalogue_is_refused_before_anything_is_written(ratings_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'training.ks' holds 31, but 'ratings' has 30"):
        fit(_recipe(ratings_file, ks=[31]), tmp_path / 'run', progress=False)
    assert not (tmp_path / 'run').exists()


def test_lists_longer_than_the_catalogue_are_left_out_where_nobody_asked_for_them(
        ratings_file: Path, tmp_path: Path) -> None:
    run = fit(_recipe(ratings_file, ks=None, max_epochs=1), tmp_path / 'run', progress=False)
    assert {name.partition('@')[2] for name in run.metrics['test']} == {'10', '20'}


def test_a_run_resumes_on_its_own_data_wherever_the_source_went(ratings_file: Path, tmp_path: Path) -> None:
    source = tmp_path / 'source.csv'
    source.write_bytes(ratings_file.read_bytes())
    expected = fit(_recipe(source), tmp_path / 'whole', progress=False).metrics
    fit(_recipe(source, max_epochs=2), tmp_path / 'run', progress=False)
    lines = source.read_text().splitlines(keepends=True)
    source.write_text(''.join(lines[:1] + lines[30:] + ['new,"item, 00",5\n']))
    metrics = fit(_recipe(source), tmp_path / 'run', resume=True, progress=False).metrics
    for name in ('checksum', 'split_checksum', 'test', 'validation', 'epoch', 'users'):
        assert metrics[name] == expected[name], name


@pytest.mark.parametrize('after, best', [(0.4, 1), (0.95, 2)])
def test_a_moved_run_keeps_its_best_epoch(after: float, best: int, ratings_file: Path, tmp_path: Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    """After the move comes a worse epoch or a better one; what now lies in the old place is none of its business."""
    scores = iter([0.5, 0.9, after])
    evaluate = RankingEvaluator.forward

    def scripted(self: RankingEvaluator, scorer: Scorer) -> Evaluation:
        real = evaluate(self, scorer)
        return real._replace(mean={**real.mean, 'recall@20': next(scores, real.mean['recall@20'])})

    monkeypatch.setattr(RankingEvaluator, 'forward', scripted)
    with monkeypatch.context() as patch:
        patch.setattr(fitting, '_train', _stop_after(2))
        with pytest.raises(KeyboardInterrupt):
            fit(_recipe(ratings_file), tmp_path / 'run', progress=False)
    (tmp_path / 'run').rename(tmp_path / 'moved')
    (tmp_path / 'run' / 'checkpoints').mkdir(parents=True)
    (tmp_path / 'run' / 'checkpoints' / 'best.ckpt').write_text("another run's")
    assert fit(_recipe(ratings_file), tmp_path / 'moved', resume=True, progress=False).metrics['epoch'] == best
    assert (tmp_path / 'run' / 'checkpoints' / 'best.ckpt').read_text() == "another run's"


def _stop_after(epochs: int) -> Callable[..., str]:
    """Training that is interrupted after some epochs."""
    train = fitting._train

    def stopped(module: Any, batches: Any, recipe: Recipe, *rest: Any) -> str:
        shorter = dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, max_epochs=epochs))
        train(module, batches, shorter, *rest)
        raise KeyboardInterrupt

    return stopped


def test_a_run_killed_after_its_patience_ran_out_trains_no_more(
        ratings_file: Path, tmp_path: Path) -> None:
    finished = fit(_recipe(ratings_file, max_epochs=60, patience=1), tmp_path / 'run', progress=False)
    assert finished.metrics['stopped'] == 'patience'
    (tmp_path / 'run' / 'metrics.json').unlink()
    again = fit(_recipe(ratings_file, max_epochs=60, patience=1), tmp_path / 'run', resume=True, progress=False)
    for name in ('epoch', 'epochs', 'test', 'stopped'):
        assert again.metrics[name] == finished.metrics[name], name


def test_a_run_killed_before_its_data_were_written_can_be_resumed(ratings_file: Path, tmp_path: Path) -> None:
    whole = fit(_recipe(ratings_file), tmp_path / 'whole', progress=False)
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'config.yaml').write_bytes((tmp_path / 'whole' / 'config.yaml').read_bytes())
    assert fit(_recipe(ratings_file), tmp_path / 'run', resume=True, progress=False).metrics['test'] == \
        whole.metrics['test']


@pytest.mark.parametrize('group, name, value, expected', [
    ('training', 'max_epochs', 0, "'training.max_epochs' must be at least 1, got 0"),
    ('training', 'lr', 'fast', '"training.lr": Expected'),
    ('model', 'name', 'diffrec', "changed to diffrec in a recipe for tv-diff.*: make another by Recipe.from_dict"),
    ('model', 'name', 'easy', "'model.name' was changed to easy"),
])
def test_a_setting_changed_later_is_checked_before_anything_is_written(
        group: str, name: str, value: Any, expected: str, ratings_file: Path, tmp_path: Path) -> None:
    recipe = _recipe(ratings_file, max_epochs=1)
    setattr(getattr(recipe, group), name, value)
    with pytest.raises(ValueError, match=expected):
        fit(recipe, tmp_path / 'run', progress=False)
    assert not (tmp_path / 'run').exists()


def test_a_recipe_for_another_model_is_made_as_the_refusal_says(ratings_file: Path, tmp_path: Path) -> None:
    recipe = Recipe.from_dict({'dataset': vars(_recipe(ratings_file).dataset), 'model': {'name': 'ease'}})
    recipe.training.ks = (5, 20)  # type: ignore[assignment]
    fit(recipe, tmp_path / 'run', progress=False)
    assert Run.load(tmp_path / 'run').recipe.training.ks == [5, 20]
    recipe.model.name = 'ials'  # which has a regularization too, with another default
    with pytest.raises(ValueError, match="changed to ials in a recipe for ease"):
        fit(recipe, tmp_path / 'other', progress=False)


@pytest.mark.parametrize('seed', [-1, 2 ** 63])
def test_a_seed_out_of_range_is_refused_before_anything_is_written(
        seed: int, ratings_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'seed' must lie in 0"):
        fit(_recipe(ratings_file), tmp_path / 'run', seed=seed, progress=False)
    assert not (tmp_path / 'run').exists()


def test_an_unseeded_generator_of_the_caller_is_left_alone(ratings_file: Path, tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    fit(_recipe(ratings_file, max_epochs=1), tmp_path / 'run', progress=False)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_learning_rate_falls_by_its_factor_after_every_epoch(
        ratings_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = []
    start = RecommenderModule.on_train_epoch_start

    def watch(self: RecommenderModule) -> None:
        rates.append(self.trainer.optimizers[0].param_groups[0]['lr'])
        start(self)

    monkeypatch.setattr(RecommenderModule, 'on_train_epoch_start', watch)
    recipe = _recipe(ratings_file, lr=0.01, lr_decay=0.5, max_epochs=2)
    fit(recipe, tmp_path / 'run', progress=False)
    recipe.training.max_epochs = 4
    fit(recipe, tmp_path / 'run', progress=False, resume=True)
    assert rates == pytest.approx([0.01, 0.005, 0.0025, 0.00125])


def test_averaged_weights_are_evaluated_kept_and_resumed(ratings_file: Path, tmp_path: Path) -> None:
    recipe = _recipe(ratings_file, average=0.9, lr=0.05, max_epochs=4)
    whole = fit(recipe, tmp_path / 'whole', progress=False)
    recipe.training.max_epochs = 2
    fit(recipe, tmp_path / 'parts', progress=False)
    recipe.training.max_epochs = 4
    resumed = fit(recipe, tmp_path / 'parts', progress=False, resume=True)
    assert (resumed.metrics['test'], resumed.metrics['epoch']) == (whole.metrics['test'], whole.metrics['epoch'])
    log = (tmp_path / 'whole' / 'log.csv').read_text().splitlines()
    column = log[0].split(',').index('validation/recall@20')
    assert float(log[1 + whole.metrics['epoch']].split(',')[column]) == whole.metrics['validation']['recall@20']
    last = torch.load(tmp_path / 'whole' / 'checkpoints' / 'last.ckpt', weights_only=True)
    trained = last['state_dict']['model.denoiser.item_weight']
    averaged = whole.model.denoiser.item_weight.detach()
    assert float((trained - averaged).abs().mean()) > 1e-3


def test_warm_up_reaches_the_sampler(ratings_file: Path, tmp_path: Path) -> None:
    recipe = _recipe(ratings_file, max_epochs=3)
    recipe.sampler = dataclasses.replace(recipe.sampler, warmup_epochs=2)
    fit(recipe, tmp_path / 'run', progress=False)
    uniform = dataclasses.replace(recipe, sampler=dataclasses.replace(recipe.sampler, name='uniform'))
    fit(uniform, tmp_path / 'uniform', progress=False)
    first, second = ((tmp_path / name / 'log.csv').read_text().splitlines() for name in ('run', 'uniform'))
    same = [a.rpartition(',')[0] == b.rpartition(',')[0] for a, b in zip(first, second)]  # but for the seconds
    assert same == [True, True, True, False]


@pytest.mark.parametrize('options, kind', [
    ({}, torch.optim.Adam), ({'weight_decay': 0.01}, torch.optim.AdamW), ({'optimizer': 'row-lazy-adam'}, RowLazyAdam)])
def test_the_optimisers_take_their_settings(options: Dict[str, Any], kind: type, ratings_file: Path, tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    configure = RecommenderModule.configure_optimizers

    def watch(self: RecommenderModule) -> Any:
        made.append(configure(self))
        return made[0]

    monkeypatch.setattr(RecommenderModule, 'configure_optimizers', watch)
    recipe = _recipe(ratings_file, max_epochs=1, lr=0.02, beta2=0.9)
    recipe = Recipe.from_dict({**recipe.to_dict(), 'model': {'hidden_channels': 8, 'energy_items': 10},
                               'training': {**recipe.to_dict()['training'], **options}})
    fit(recipe, tmp_path / 'run', progress=False)
    optimizer = made[0][0][0]
    assert type(optimizer) is kind
    group = optimizer.param_groups[0]
    assert group['initial_lr'] == 0.02 and group['betas'] == (0.9, 0.9)
    assert group.get('weight_decay', 0) == options.get('weight_decay', 0)
