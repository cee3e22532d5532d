"""Training on a data set that is loaded already: a frame, an edge list, parts of one's own."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip('pytorch_lightning')
pandas = pytest.importorskip('pandas')
from torch_geometric.data import HeteroData  # noqa: E402

from tvdiff_pyg.cli import main  # noqa: E402
from tvdiff_pyg.datasets import InteractionEdges, InteractionFile, InteractionFrame  # noqa: E402
from tvdiff_pyg.training import Recipe, Run, RunError, fit, fitting, load_recipe  # noqa: E402
from tvdiff_pyg.transforms import RATES  # noqa: E402


def _recipe(name: Any = None, **training: Any) -> Recipe:
    return Recipe.from_dict({'dataset': {'name': name}, 'model': {'hidden_channels': 8},
                             'training': {'max_epochs': 2, 'batch_size': 16, 'ks': [20], **training}})


@pytest.fixture(scope='module')
def frame(ratings_file: Path) -> Any:
    return pandas.read_csv(ratings_file)


def test_a_frame_is_trained_on_as_its_file_is(frame: Any, ratings_file: Path, tmp_path: Path,
                                              capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = _recipe()
    data = InteractionFrame(frame, name='mine')[0]
    before = data.to_dict()
    run = fit(recipe, tmp_path / 'mine', progress=False, data=data)
    assert recipe == _recipe() and set(data.to_dict()) == set(before) and 'val_edge_label_index' not in data[RATES]
    recipe.dataset.name, recipe.dataset.path = 'interaction-file', str(ratings_file)
    file = fit(recipe, tmp_path / 'file', progress=False)
    for name in ('test', 'validation', 'epoch', 'split_checksum', 'pairs'):
        assert run.metrics[name] == file.metrics[name], name
    assert (run.metrics['dataset'], run.metrics['checksum']) == ('mine', data.checksum)

    read = Run.load(tmp_path / 'mine')
    assert read.metrics == run.metrics and read.recipe == _recipe()
    assert read.recommend(['u03'], 5) == run.recommend(['u03'], 5) == file.recommend(['u03'], 5)
    monkeypatch.chdir(tmp_path)
    Path('new.csv').write_text('user,item\nu03,new\n')
    capsys.readouterr()
    for command in (['fit', '--resume', '--out', 'mine'], ['test', 'mine'], ['thermo', 'mine'],
                    ['report', 'mine', '--out', 'report.html'], ['recommend', 'mine', '--users', 'u03'],
                    ['export', 'mine', '--out', 'exported', '--new-items', 'new.csv']):
        main(command)
    out = capsys.readouterr().out
    assert 'Training into mine\nmine: 40 users x 30 items' in out and 'None' not in out
    assert 'None' not in (tmp_path / 'report.html').read_text(encoding='utf-8')
    assert json.loads((tmp_path / 'exported' / 'export.json').read_text())['dataset'] == 'mine'


def test_an_interrupted_run_goes_on_from_its_folder(frame: Any, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    data = InteractionFrame(frame)[0]
    whole = fit(_recipe(max_epochs=3), tmp_path / 'whole', progress=False, data=data)
    fit(_recipe(), tmp_path / 'run', progress=False, data=data)
    main(['fit', '--resume', '--out', str(tmp_path / 'run'), '--max-epochs', '3'])
    assert Run.load(tmp_path / 'run').metrics['test'] == whole.metrics['test']
    assert fit(_recipe(max_epochs=3), tmp_path / 'run', resume=True, progress=False, data=data).metrics['epochs'] == 3
    for other in (InteractionFrame(frame[3:])[0], InteractionFrame(frame, seed=1)[0]):
        with pytest.raises(RunError, match="was begun with other data than 'data', or another split"):
            fit(_recipe(max_epochs=3), tmp_path / 'run', resume=True, progress=False, data=other)
    monkeypatch.setattr(fitting, 'save_data', lambda *options: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # killed before its data were written
        fit(_recipe(), tmp_path / 'killed', progress=False, data=data)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="'dataset.name' must name a data set .*, unless fit is given 'data'"):
        fit(_recipe(), tmp_path / 'killed', resume=True, progress=False)
    assert fit(_recipe(), tmp_path / 'killed', resume=True, progress=False, data=data).metrics['epochs'] == 2


def test_parts_of_ones_own_are_what_is_trained_and_tested(tmp_path: Path) -> None:
    user, item = torch.arange(30).repeat_interleave(25), torch.arange(25).repeat(30)
    part = (user * 7 + item * 3) % 10  # 0: test, 1: validation, 2 to 7: train
    train, test, validation = (torch.stack([user, item])[:, chosen] for chosen in ((part > 1) & (part < 8), part == 0,
                                                                                   part == 1))
    data = InteractionEdges(train, test=test, validation=validation)[0]
    for protocol in ('holdout', 'paper'):
        run = fit(_recipe('edges'), tmp_path / protocol, progress=False, protocol=protocol, data=data)
        assert run.metrics['pairs'] == {'train': train.size(1), 'test': test.size(1), 'validation': validation.size(1)}
        assert run.split.test.edge_index.tolist() == test.tolist()


def test_data_that_cannot_be_trained_on_are_refused(frame: Any, ratings_file: Path, tmp_path: Path) -> None:
    dataset = InteractionFrame(frame)
    bare = HeteroData()
    nameless = dataset[0]
    del nameless.user_id
    short, unwritable, own_name = dataset[0], dataset[0], dataset[0]
    short.item_attributes = {'title': ['one']}
    unwritable.item_attributes = {'year': [float('nan')] * dataset[0]['item'].num_nodes}
    own_name.item_attributes = {'item': list(dataset[0].item_id)}
    for recipe, data, message in (
            (_recipe(), dataset, r"'data' must be a HeteroData, as InteractionFrame\(frame\)\[0\] is; got Interaction"),
            (_recipe(), frame, 'must be a HeteroData.*; got DataFrame'),
            (_recipe(), bare, "'data' has no name, checksum, dropped"),
            (_recipe(), nameless, "'data' has no user_id: take the graph of a data set"),
            (_recipe(), short, "'data.item_attributes' title must be a list of [0-9]+ values, one an item"),
            (_recipe(), unwritable, "'data.item_attributes' year cannot be written as JSON"),
            (_recipe(), own_name, "'item_attributes' item has a name that lists use themselves .*: rename it"),
            (_recipe('lastfm'), dataset[0], "'dataset.name' is lastfm, but 'data' is frame: set 'dataset.name' to N"),
            (load_recipe('interaction-file', path=str(ratings_file)), dataset[0], "'dataset.name' is interaction-file"),
            (_recipe(), InteractionFile(ratings_file, test_ratio=0)[0],
             "'ratings' has no test part.*'dataset.test_ratio'")):
        with pytest.raises(ValueError, match=message):
            fit(recipe, tmp_path / 'run', progress=False, data=data)
    assert not (tmp_path / 'run').exists()
    assert load_recipe('interaction-file', name=None).training.batch_size == 128
