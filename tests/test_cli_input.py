"""Options and files: which of them count, and what is refused."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Callable, List

import pytest

pytest.importorskip('pytorch_lightning')
from tvdiff_pyg.cli import main  # noqa: E402
from tvdiff_pyg.cli.commands import COMMANDS  # noqa: E402
from tvdiff_pyg.training import recipe_names  # noqa: E402


def test_settings_override_recipes_wherever_they_stand(ratings_file: Path, tmp_path: Path) -> None:
    out = tmp_path / 'run'
    config = tmp_path / 'mine.yaml'
    config.write_text('model: {hidden_channels: 12}\ntraining: {batch_size: 32, ks: [10], max_epochs: 9}\n')
    main(['fit', '--training.max_epochs=1', '--config', str(config), '--recipe=interaction-file',
          '--dataset.path', str(ratings_file), '--out', str(out)])
    text = (out / 'config.yaml').read_text()
    assert 'hidden_channels: 12' in text and 'max_epochs: 1' in text and 'batch_size: 32' in text


@pytest.mark.parametrize('arguments, expected', [
    (['fit'], 'name a recipe'),
    (['fit', '--recipe', 'nope'], "no recipe 'nope'; choose one of amazon-beauty"),
    (['fit', '--recipe'], '--recipe needs a value'),
    (['fit', '--config', 'missing.yaml'], 'missing.yaml'),
    (['fit', '--recipe', 'lastfm', '--loss.temprature', '1'], 'temprature'),
    (['fit', '--recipe', 'lastfm', '--loss.entropy', 'mse'], 'mse'),
    (['fit', '--recipe', 'lastfm', '--training.lr', '-1'], "'training.lr' must be"),
    (['fit', '--recipe', 'lastfm', '--seed', 'x'], 'seed'),
    (['fit', '--recipe', 'lastfm', '--resume'], '--resume needs --out'),
    (['fit', '--recipe', 'interaction-file'], "'dataset.path' must name"),
    (['fit', '--recipe', 'movielens-small', '--seed', '-1'], "'seed' must lie in"),
    (['fit', '--recipe', 'interaction-file', '--dataset.path', 'missing.csv'], 'missing.csv'),
    (['fit', '--recipe', 'lastfm', '--dataset.name', 'nope'], "'nope'"),
    (['test', 'missing'], 'missing is not a run folder'),
    (['recommend', 'missing', '--users', '1'], 'missing is not a run folder'),
    (['recommend', 'missing'], 'users'),
    (['frobnicate'], 'frobnicate'),
    ([], 'command'),
])
def test_wrong_input_is_one_line_and_leaves_nothing(arguments: List[str], expected: str, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch, fails: Callable[..., str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert expected in fails(*arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('text, expected', [
    ('', 'empty'),
    ('just-one-column\n', 'line 1'),
    ('user,item,rating\nu1,i1,nan\n', 'line 2'),
    ('user,item,rating\nu1,,4\n', 'line 2'),
])
def test_bad_files_are_named_and_leave_nothing(text: str, expected: str, tmp_path: Path,
                                               fails: Callable[..., str]) -> None:
    file, out = tmp_path / 'bad.csv', tmp_path / 'run'
    file.write_text(text)
    line = fails('fit', '--recipe', 'interaction-file', '--dataset.path', str(file), '--out', str(out),
                 '--dataset.rating_column', 'rating', '--dataset.min_rating', '4')
    assert 'bad.csv' in line and expected in line
    assert not out.exists()


def test_benchmark_files_are_checked(tmp_path: Path, fails: Callable[..., str]) -> None:
    raw = tmp_path / 'lastfm' / 'raw'
    raw.mkdir(parents=True)
    for name in ('train.txt', 'test.txt'):
        (raw / name).write_text('1\t2\t3\n')
    line = fails('fit', '--recipe', 'lastfm', '--data-root', str(tmp_path), '--out', str(tmp_path / 'run'))
    assert 'train.txt' in line or 'test.txt' in line
    assert 'SHA-256 expected' in line
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('arguments, expected', [
    (['--users', 'u99'], "user 'u99' does not occur"),
    (['--users', 'u01,u01'], "user 'u01' is named twice"),
    (['--users', ''], "user ''"),
    (['--users', 'u01', '-k', '31'], "'k' must lie in 1..30"),
    (['--users', 'u01', '-k', '0'], "'k' must lie in 1..30"),
    ([], 'name the people by one of --users, --users-file, --all, --history'),
    (['--users', 'u01', '--all'], 'not by --users and --all'),
    (['--all'], '--all needs --out FILE.jsonl or FILE.parquet, or --json'),
    (['--all', '--out', 'lists.csv'], 'lists.csv must end in .jsonl or .parquet'),
    (['--history', 'item'], "item 'item' does not occur"),
    (['--history', ''], "item '' does not occur"),
    (['--users', 'u01\nu02'], 'separate them by commas'),
    (['--users', '"u01'], 'separate them by commas'),
    (['--users-file', 'none.txt'], 'none.txt cannot be read as ids, one a line'),
    (['--users', 'u01', '--deny', 'none.txt'], 'none.txt cannot be read'),
    (['--users', '#5'], "user '#5' does not occur"),
    (['--users', 'null'], "user 'null' does not occur"),
    (['--history', '#python,#rust'], "item '#python' does not occur"),
    (['--users', 'u01', '--deny', '#sold.txt'], '#sold.txt cannot be read'),
    (['--users', 'u01', '--allow', '~'], '~ cannot be read'),
])
def test_recommend_refuses(arguments: List[str], expected: str, run_folder: Path, fails: Callable[..., str]) -> None:
    assert expected in fails('recommend', str(run_folder), *arguments)


@pytest.mark.parametrize('text, expected', [
    ('', 'must hold named settings'),
    ('- 1', 'must hold named settings'),
    ('training:', "'training' must hold named settings"),
    ('a: [', 'cannot be read as YAML'),
    ('recipe: lastfm', 'pass --recipe lastfm'),
    ('model: {width: 1}', 'width'),
    ('dataset: {path: x.csv}', "'dataset.path' is for a file of your own"),
    ('model: {dropout: 0.1}', "'dataset.name' must name a data set"),
])
def test_wrong_config_files_are_named(text: str, expected: str, tmp_path: Path, fails: Callable[..., str]) -> None:
    config, out = tmp_path / 'mine.yaml', tmp_path / 'run'
    config.write_text(text)
    assert expected in fails('fit', '--config', str(config), '--out', str(out))
    assert not out.exists()


def test_settings_that_would_be_ignored_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                    fails: Callable[..., str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert "'dataset.min_rating' is for a file of your own" in fails(
        'fit', '--recipe', 'lastfm', '--dataset.min_rating', '3')
    assert '--rec' in fails('fit', '--rec', 'lastfm')
    assert '--recipe is given twice' in fails('fit', '--recipe', 'lastfm', '--recipe', 'gowalla')
    assert "'data_root' typo is no folder" in fails('fit', '--recipe', 'lastfm', '--data-root', 'typo')
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_ones_own_needs_no_recipe(ratings_file: Path, tmp_path: Path) -> None:
    main(['fit', '--dataset.path', str(ratings_file), '--max-epochs', '1', '--model.hidden_channels', '8',
          '--out', str(tmp_path / 'run')])
    assert 'batch_size: 128' in (tmp_path / 'run' / 'config.yaml').read_text()  # as in the recipe interaction-file


def test_every_recipe_parses() -> None:
    from tvdiff_pyg.training import load_recipe

    assert 'lastfm' in recipe_names() and 'movielens-small' in recipe_names()
    for name in recipe_names():
        if name != 'interaction-file':
            assert load_recipe(name).dataset.name == name


@pytest.mark.parametrize('name', [['--model.name', 'ease'], ['--model.name=ease']], ids=' '.join)
def test_a_baseline_on_a_file_of_ones_own(name: list, ratings_file: Path, tmp_path: Path,
                                          capsys: pytest.CaptureFixture) -> None:
    """The recipe for such files is TV-Diff's; another model starts from its own defaults."""
    main(['fit', '--dataset.path', str(ratings_file), *name, '--model.regularization', '30', '--training.ks', '[20]',
          '--out', str(tmp_path / 'run')])
    assert 'ease, protocol holdout, seed 0: solved in closed form' in capsys.readouterr().out
    main(['recommend', str(tmp_path / 'run'), '--users', 'u03', '-k', '2', '--json'])
    assert len(json.loads(capsys.readouterr().out)['items']) == 2
    main(['test', str(tmp_path / 'run'), '--json'])
    assert json.loads(capsys.readouterr().out)['model'] == 'ease'
    with pytest.raises(SystemExit):
        main(['fit', '--recipe', 'lastfm', *name, '--out', str(tmp_path / 'other')])
    assert "model 'ease' has no such setting: leave it out, or start from --dataset.name" in capsys.readouterr().err
    assert not (tmp_path / 'other').exists()


@pytest.mark.parametrize('error, expected', [
    (MemoryError(), 'not enough memory (MemoryError)'),
    (MemoryError('Unable to allocate 8 GiB'), 'not enough memory (Unable to allocate 8 GiB)'),
    (RuntimeError('DefaultCPUAllocator: cannot allocate memory'), 'not enough memory (DefaultCPUAllocator'),
])
def test_too_little_memory_is_one_line(error: Exception, expected: str, monkeypatch: pytest.MonkeyPatch,
                                       capsys: pytest.CaptureFixture) -> None:
    def fail(options: object) -> None:
        raise error

    monkeypatch.setitem(COMMANDS, 'demo', fail)
    with pytest.raises(SystemExit) as exit_info:
        main(['demo'])
    line, = capsys.readouterr().err.splitlines()
    assert exit_info.value.code == 1 and expected in line
