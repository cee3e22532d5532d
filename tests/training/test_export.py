"""A run as plain vector search."""
from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Callable, ContextManager

import pytest
import torch

pytest.importorskip('pytorch_lightning')
from tvdiff_pyg.cli import main  # noqa: E402
from tvdiff_pyg.diffusion import GaussianDiffusion, NoiseSchedule  # noqa: E402
from tvdiff_pyg.exported import ExportedRecommender  # noqa: E402
from tvdiff_pyg.interaction_matrix import InteractionMatrix  # noqa: E402
from tvdiff_pyg.nn import AnisotropicDenoiser, DiffRec, HelmholtzFreeEnergy, TVDiff  # noqa: E402
from tvdiff_pyg.nn.query_encoder import QueryEncoder  # noqa: E402
from tvdiff_pyg.training import Run  # noqa: E402
from tvdiff_pyg.training import export as exporting  # noqa: E402
from tvdiff_pyg.training.export import build_index, export_run  # noqa: E402


def _train() -> InteractionMatrix:
    seen = torch.rand(20, 30, generator=torch.Generator().manual_seed(0)) < 0.3
    return InteractionMatrix(seen.nonzero().t(), 20, 30)


def _models(train: InteractionMatrix, dtype: torch.dtype) -> dict:
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        process = GaussianDiffusion(NoiseSchedule(num_steps=4, scale=1.0, beta_min=0.1, beta_max=0.4))
        out = {name: TVDiff(train, AnisotropicDenoiser(20, 30, **options), process, HelmholtzFreeEnergy('nll', 1.0))
               for name, options in {
                   'cat': dict(hidden_channels=5), 'gate': dict(hidden_channels=5, time_type='gate'),
                   'align': dict(hidden_channels=[6, 4], time_type='align'),
                   'no graph': dict(hidden_channels=5, normalization='none'),
                   'hops': dict(hidden_channels=5, num_hops=2)}.items()}
        return {**out, 'diffrec': DiffRec(train, process, [6, 4])}
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize('name', ['cat', 'gate', 'align', 'no graph', 'hops', 'diffrec'])
def test_query_times_table_are_the_scores(name: str) -> None:
    train = _train()
    model = _models(train, torch.float64)[name].eval()
    encoder = QueryEncoder.of(model)
    row, item = train.rows(torch.arange(20))
    count = torch.bincount(row, minlength=20)
    expected = model.scorer()(torch.arange(20))
    torch.testing.assert_close(encoder(item, count.cumsum(0) - count) @ encoder.table.t(), expected)
    kept = set(encoder.state_dict())
    assert not any('conv' in key or 'item_table' in key or 'item_bias' in key for key in kept)
    assert model.denoiser.item_weight.requires_grad  # the model is as it was
    assert (model.denoiser.conv is None) == (name in ('no graph', 'diffrec'))


def test_noise_prediction_is_refused() -> None:
    train = _train()
    model = TVDiff(train, AnisotropicDenoiser(20, 30, 4), GaussianDiffusion(NoiseSchedule(num_steps=2), 'eps'),
                   HelmholtzFreeEnergy('nll', 1.0), engine='dense')
    with pytest.raises(ValueError, match='predicts noise'):
        QueryEncoder.of(model)


@pytest.fixture(scope='module')
def exported(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('export') / 'torch'
    main(['export', str(run_folder), '--out', str(out)])
    return out


def test_an_export_gives_the_lists_of_the_run(exported: Path, run_folder: Path) -> None:
    run, served = Run.load(run_folder), ExportedRecommender.load(exported)
    names = run.split.data.item_id
    histories = [[names[item] for item in run.split.train.rows(torch.tensor([user]))[1].tolist()] for user in range(5)]
    for deny in ([], [names[2], names[9]]):
        expected = run.recommend_history(histories, 6, deny=deny)
        for history, wanted in zip(histories, expected):
            got, = served.recommend([[*history[::-1], history[0]]], 6, deny)
            assert [item['item'] for item in got] == [item['item'] for item in wanted['items']]
            assert [item['score'] for item in got] == pytest.approx(
                [item['score'] for item in wanted['items']], abs=1e-5)
            assert served.recommend([history], 6, ['lost', *deny]) == [got]
            assert run.recommend_history([history], 6, deny=['lost', *deny]) == [wanted]
    together = served.recommend(histories, 6)
    assert [[item['item'] for item in got] for got in together] == [
        [item['item'] for item in wanted['items']] for wanted in run.recommend_history(histories, 6)]


def test_it_holds_nothing_of_the_users(exported: Path, run_folder: Path) -> None:
    run = Run.load(run_folder)
    program = torch.export.load(exported / 'encoder.pt2')
    users = run.split.train.num_users
    assert users != run.model.num_items
    assert not any(users in value.shape for value in program.state_dict.values())
    assert program.module()(torch.tensor([3, 5]), torch.tensor([0])).shape == (1, 16)
    text = (exported / 'items.json').read_text() + (exported / 'export.json').read_text()
    assert run.split.data.user_id[0] not in text
    about = json.loads((exported / 'export.json').read_text())
    assert about['difference'] < 1e-6 and about['compared_users'] == users and about['index'] is None


def test_it_is_read_without_lightning(exported: Path) -> None:
    code = ("import sys; sys.modules['pytorch_lightning'] = None; sys.modules['jsonargparse'] = None\n"
            "from tvdiff_pyg.exported import ExportedRecommender\n"
            f"print(ExportedRecommender.load({str(exported)!r}).recommend([['item, 03']], 2)[0][0]['item'])")
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    assert out.startswith('item, ')


@pytest.mark.parametrize('index', ['flat', 'ivf', 'hnsw'])
def test_an_index_finds_what_the_table_holds(index: str, run_folder: Path, tmp_path: Path,
                                             capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip('faiss')
    out = tmp_path / index
    main(['export', str(run_folder), '--format', 'faiss', '--index', index, '--out', str(out)])
    assert f'index: kind {index}' in capsys.readouterr().out
    plain, served = ExportedRecommender.load(out), ExportedRecommender.load(out)
    plain.index = None
    assert served.index.ntotal == 30
    history = [['item, 03', 'item, 05']]
    assert [item['item'] for item in served.recommend(history, 5)[0]] == [
        item['item'] for item in plain.recommend(history, 5)[0]]


@pytest.mark.parametrize('kind', ['ivf', 'hnsw'])
def test_the_stated_recall_is_the_measured_one(kind: str) -> None:
    pytest.importorskip('faiss')
    generator = torch.Generator().manual_seed(0)
    table, query = torch.randn(3000, 16, generator=generator), torch.randn(50, 16, generator=generator)
    index, about = build_index(table, query, kind)
    found = index.search(query.numpy(), 100)[1]
    exact = (query @ table.t()).topk(100).indices.tolist()
    share = sum(len(set(a) & set(b)) for a, b in zip(found.tolist(), exact)) / 5000
    assert about['recall@100'] == pytest.approx(share, abs=1e-6) and share >= 0.99
    setting = {'ivf': 'nprobe', 'hnsw': 'efSearch'}[kind]
    assert 0 < about[setting] < 3000


def test_places_that_an_index_leaves_empty_are_not_found() -> None:
    pytest.importorskip('faiss')
    generator = torch.Generator().manual_seed(0)
    centres = 10 * torch.eye(3, 8)
    table = centres.repeat_interleave(40, 0) + torch.randn(120, 8, generator=generator)  # lists of 40, asked for 100
    query = centres.repeat(5, 1) + torch.randn(15, 8, generator=generator)
    index, about = build_index(table, query, 'ivf')
    found = index.search(query.numpy(), 100)[1]
    exact = (query @ table.t()).topk(100).indices.tolist()
    share = sum(len(set(a) & set(b)) for a, b in zip(found.tolist(), exact)) / 1500
    assert about['recall@100'] == pytest.approx(share, abs=1e-6) and share >= 0.99 and about['nprobe'] > 1


def test_the_encoder_follows_its_type_and_place() -> None:
    train = _train()
    model = _models(train, torch.float32)['cat'].eval()
    encoder = QueryEncoder.of(model)
    item, offset = torch.tensor([3, 5, 1]), torch.tensor([0, 2])
    single = encoder(item, offset)
    torch.testing.assert_close(encoder.double()(item, offset).float(), single)


def test_a_new_item_gets_the_row_of_a_known_one_with_the_same_people(run_folder: Path, tmp_path: Path,
                                                                     capsys: pytest.CaptureFixture) -> None:
    """Twin of a trained item: the same users give the same row, and nothing else changes."""
    run = Run.load(run_folder)
    data, train = run.split.data, run.split.train
    twin = 4
    users = [data.user_id[user] for user in train.edge_index[0][train.edge_index[1] == twin].tolist()]
    pairs = tmp_path / 'new.csv'
    lines = [f'{user},"new, twin"' for user in users] + [f'{users[0]},"new, twin"', f'{users[0]},single']
    pairs.write_text('\n'.join(['user,item', *lines, f'{users[0]},"item, 03"', 'nobody,single']) + '\n')
    main(['export', str(run_folder), '--new-items', str(pairs), '--out', str(tmp_path / 'out')])
    assert (f'new: 2 items from {len(users) + 1} pairs; left out: 1 pairs of items that were trained on, 1 of unknown '
            f'users') in capsys.readouterr().out
    served = ExportedRecommender.load(tmp_path / 'out')
    assert [item['item'] for item in served.items[30:]] == ['new, twin', 'single']
    torch.testing.assert_close(served.table[30], served.table[twin])
    row = run.model.denoiser.conv.weight[data.user_id.index(users[0])]  # type: ignore[union-attr]
    torch.testing.assert_close(served.table[31], (row / float(train.user_degree[data.user_id.index(users[0])]) ** 0.5)
                               .detach().tanh())
    history = ['item, 07', 'item, 09']
    before, = run.recommend_history([history], 28)
    after, = served.recommend([[*history, 'single']], 28)  # the new item says nothing, and is not listed
    assert [item for item in (entry['item'] for entry in after) if item != 'new, twin'] == [
        entry['item'] for entry in before['items']][:27]
    assert 'single' not in [entry['item'] for entry in after]
    pairs.write_text(f'user,item\n{users[0]},"item, 03"\n')
    with pytest.raises(SystemExit):
        main(['export', str(run_folder), '--new-items', str(pairs), '--out', str(tmp_path / 'nothing')])
    assert 'no new item of a known user: of 1 pairs 1' in capsys.readouterr().err
    assert not (tmp_path / 'nothing').exists()


@pytest.mark.parametrize('name', ['no graph', 'hops', 'diffrec'])
def test_other_models_have_no_rows_for_new_items(name: str) -> None:
    with pytest.raises(ValueError, match='only a model with a graph and one hop'):
        _models(_train(), torch.float32)[name].new_item_codes(torch.tensor([[0], [0]]), 1)


def test_rows_of_new_items_pass_all_layers() -> None:
    train = _train()
    model = _models(train, torch.float64)['align'].eval()
    user = train.edge_index[0][train.edge_index[1] == 11]
    row = model.new_item_codes(torch.stack([user, torch.ones_like(user)]), 2)
    torch.testing.assert_close(row[1], model.denoiser.items(model.graph)[11])
    assert not row[0].any() and not row.requires_grad
    with pytest.raises(ValueError, match='edge_index'):
        model.new_item_codes(torch.tensor([[20], [0]]), 1)
    with pytest.raises(ValueError, match="row 1 of 'edge_index' holds -1 to -1"):
        model.new_item_codes(torch.tensor([[0], [-1]]), 1)


def test_what_cannot_be_exported_and_broken_exports(exported: Path, run_folder: Path, ratings_file: Path,
                                                    tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    main(['fit', '--dataset.path', str(ratings_file), '--model.name', 'ease', '--out', str(tmp_path / 'ease')])
    for arguments, expected in (
            ([str(tmp_path / 'ease'), '--out', str(tmp_path / 'x')], 'a ease model has no query encoder'),
            ([str(run_folder), '--out', str(exported)], 'exists already'),
            ([str(run_folder), '--index', 'ivf', '--out', str(tmp_path / 'x')], '--index goes with --format faiss')):
        with pytest.raises(SystemExit):
            main(['export', *arguments])
        assert expected in capsys.readouterr().err and not (tmp_path / 'x').exists()
    served = ExportedRecommender.load(exported)
    for histories, expected in (([], 'people with at least one item'), ([[]], 'at least one item'),
                                ([['item, 99']], "item 'item, 99' is not among"),
                                (['item, 03'], r"'histories\[0\]' must be a list of ids, got 'item, 03'"),
                                ([[3]], "ids are text: write '3'")):
        with pytest.raises(ValueError, match=expected):
            served.recommend(histories, 3)
    with pytest.raises(ValueError, match="'deny' must be a list of ids, got '12'"):
        served.recommend([['item, 03']], 3, deny='12')
    with pytest.raises(ValueError, match="'k' must lie in 1..30"):
        served.recommend([['item, 03']], 31)
    for name, content in (('export.json', '{"format": 99}'), ('items.json', '[]'), ('encoder.safetensors', 'x'),
                          ('table.safetensors', ''), ('export.json', '{"format": 1}')):
        broken = tmp_path / f'{name}-{len(content)}'
        shutil.copytree(exported, broken)
        (broken / name).write_text(content)
        with pytest.raises(ValueError, match='is not a complete export|are not of one export'):
            ExportedRecommender.load(broken)


def test_a_program_that_is_not_the_model_is_not_written(run_folder: Path, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    from tvdiff_pyg.training import export

    monkeypatch.setattr(export, '_difference', lambda *arguments: 1e-3)
    with pytest.raises(ValueError, match='differs from the model by 1.0e-03'):
        export_run(Run.load(run_folder), tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_a_nan_is_a_difference(run_folder: Path) -> None:
    run = Run.load(run_folder)
    encoder, users = QueryEncoder.of(run.model), torch.arange(3)
    query = encoder(*exporting.histories(run.split.train, users)).detach()
    assert exporting._difference(run, users, query, encoder.table) < 1e-5
    query[1] = torch.nan
    assert math.isnan(exporting._difference(run, users, query, encoder.table))


def test_an_export_keeps_its_own_number_type(exported: Path) -> None:
    people = [['item, 03', 'item, 04'], ['item, 11']]
    expected = ExportedRecommender.load(exported).recommend(people, 5)
    torch.set_default_dtype(torch.float64)
    try:
        served = ExportedRecommender.load(exported)
        assert served.query([[1, 2]]).dtype == torch.float32 and served.query([]).shape == (0, 16)
        assert served.recommend(people, 5) == expected
    finally:
        torch.set_default_dtype(torch.float32)


def test_an_export_is_whole_or_not_there(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tvdiff_pyg.training import export

    run, out = Run.load(run_folder), tmp_path / 'out'
    (tmp_path / '.out.part').mkdir()
    with pytest.raises(ValueError, match='out.part is there: an export to .*/out goes on, or was killed; remove it'):
        export_run(run, out)
    (tmp_path / '.out.part').rmdir()
    with monkeypatch.context() as patch:
        def refuse(path: Path, value: object) -> None:
            assert not out.exists() and (path.parent / 'table.safetensors').is_file()
            raise OSError(28, 'No space left on device')

        patch.setattr(export, 'write_json', refuse)
        with pytest.raises(OSError, match='No space left'):
            export_run(run, out)
    assert not list(tmp_path.iterdir())
    export_run(run, out)
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize('index, name', [([], 'encoder.pt2'), (['--format', 'faiss'], 'index.faiss')])
def test_a_full_disk_is_one_line(index: list, name: str, run_folder: Path, tmp_path: Path,
                                 monkeypatch: pytest.MonkeyPatch, full_disk: Callable[[int], ContextManager[None]],
                                 fails: Callable[..., str]) -> None:
    with ExitStack() as stack:
        if index:
            pytest.importorskip('faiss')
            write_json = exporting.write_json

            def last_but_the_index(path: Path, value: object) -> None:
                write_json(path, value)
                stack.enter_context(full_disk(64))

            monkeypatch.setattr(exporting, 'write_json', last_but_the_index)
        else:
            stack.enter_context(full_disk(4096))
        line = fails('export', str(run_folder), *index, '--out', str(tmp_path / 'out'))
    assert f'{name} cannot be written' in line and 'is the disk full?' in line
    assert not list(tmp_path.iterdir())


def test_new_items_are_read_as_the_run_s_own_file_was(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Columns in another order, and a rating that must be reached."""
    path = tmp_path / 'likes.csv'
    lines = [f'i{item};{4 if (user + item) % 3 else 1};u{user}' for user in range(30) for item in range(25)]
    path.write_text('\n'.join(['what;stars;who', *lines]) + '\n')
    main(['fit', '--dataset.path', str(path), '--dataset.user_column', 'who', '--dataset.item_column', 'what',
          '--dataset.rating_column', 'stars', '--dataset.min_rating', '4', '--model.hidden_channels', '4',
          '--max-epochs', '1', '--training.ks', '[20]', '--out', str(tmp_path / 'run')])
    later = tmp_path / 'later.csv'
    later.write_text('what;stars;who\nnew;5;u1\nnew;1;u2\nbad;1;u3\n')
    main(['export', str(tmp_path / 'run'), '--new-items', str(later), '--out', str(tmp_path / 'out')])
    assert 'new: 1 items from 1 pairs; left out: 0 pairs' in capsys.readouterr().out


def test_a_time_column_alone_says_how_new_items_are_read(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Without it, lines of numbers would be a user and all their items."""
    path, later = tmp_path / 'plain.txt', tmp_path / 'later.txt'
    path.write_text('\n'.join(f'{user} {item} 5 {100 + user + item}' for user in range(30) for item in range(25)
                              if (user + item) % 3) + '\n')
    main(['fit', '--dataset.path', str(path), '--dataset.time_column', '3', '--dataset.split', 'temporal',
          '--model.hidden_channels', '4', '--max-epochs', '1', '--training.ks', '[20]', '--out', str(tmp_path / 'run')])
    later.write_text('1 901 5 300\n2 901 4 301\n')
    main(['export', str(tmp_path / 'run'), '--new-items', str(later), '--out', str(tmp_path / 'out')])
    assert 'new: 1 items from 2 pairs' in capsys.readouterr().out
