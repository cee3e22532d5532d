"""What goes into a run folder comes out of it."""
from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, Iterator

import pytest
import torch

pytest.importorskip('safetensors')
from tvdiff_pyg.datasets import interaction_data  # noqa: E402
from tvdiff_pyg.files import locked, remove_parts, write_atomically, write_json  # noqa: E402
from tvdiff_pyg.training.lists import read_ids, write_lists  # noqa: E402
from tvdiff_pyg.training.storage import (  # noqa: E402
    AtomicCheckpoints,
    load_data_folder,
    load_weights,
    save_data,
    save_weights,
)


def test_the_graph_goes_round_trip(tmp_path: Path) -> None:
    ids = ['007', '7', 'ünï "quoted", id']
    data = interaction_data(
        'tiny', (ids, ['b', 'a', 'b']), (['7'], ['b']), (['007'], ['a']), checksum='f' * 64,
        item_attributes={'title': {'a': 'A, "film"', 'b': ''}, 'year': {'a': 1999, 'b': None},
                         'genres': {'a': ['Comedy'], 'b': []}})
    save_data(data, tmp_path)
    got = load_data_folder(tmp_path)
    assert got.validate()
    assert got.user_id == data.user_id and set(got.user_id) == set(ids)
    for name in ('item_id', 'item_attributes'):
        assert got[name] == data[name], name
    for edge_type in data.edge_types:
        assert set(got[edge_type].keys()) == set(data[edge_type].keys())
        for name, value in data[edge_type].items():
            assert torch.equal(got[edge_type][name], value), (edge_type, name)
    assert (got.name, got.checksum, got.dropped) == ('tiny', 'f' * 64, data.dropped)


def test_nan_of_a_run_made_before_is_no_value(tmp_path: Path) -> None:
    data = interaction_data('tiny', (['u', 'u'], ['a', 'b']), checksum='f' * 64)
    data.item_attributes = {'year': [1999.0, float('nan')]}  # as interaction_data once left it
    save_data(data, tmp_path)
    assert load_data_folder(tmp_path).item_attributes == {'year': [1999.0, None]}


def test_weights_go_round_trip_and_fit_their_own_model_only(tmp_path: Path) -> None:
    model, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    save_weights(model.state_dict(), tmp_path / 'w')
    load_weights(other, tmp_path / 'w')
    assert torch.equal(model.weight, other.weight)
    for wrong in (torch.nn.Linear(4, 2), torch.nn.Linear(3, 2, bias=False)):
        with pytest.raises(ValueError, match='another model'):
            load_weights(wrong, tmp_path / 'w')


def test_a_failed_write_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / 'metrics.json'
    write_json(path, {'a': 1})
    before = path.read_bytes()

    def fail(temporary: Path) -> None:
        temporary.write_text('half')
        raise OSError('disk full')

    with pytest.raises(OSError, match='disk full'):
        write_atomically(path, fail)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ['metrics.json']


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / 'metrics.json'

    def outer(temporary: Path) -> None:
        with open(temporary, 'w') as file:
            file.write('outer, ')
            file.flush()
            write_json(path, 'inner')
            assert path.read_text() == '"inner"\n' and temporary.exists()
            file.write('whole')

    write_atomically(path, outer)
    assert path.read_text() == 'outer, whole' and os.listdir(tmp_path) == ['metrics.json']
    (tmp_path / 'plain').touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / 'plain').stat().st_mode)


@pytest.mark.parametrize('links', [True, False])
def test_of_two_lists_at_once_the_first_to_finish_stays(links: bool, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Any, target: Any) -> None:
        raise PermissionError('no links on this file system')

    if not links:
        monkeypatch.setattr(os, 'link', refuse)
    path = tmp_path / 'lists.jsonl'

    def answers() -> Iterator[Dict[str, Any]]:
        yield {'user': 'outer', 'items': []}
        assert write_lists([{'user': 'inner', 'items': []}], path) == 1
        yield {'user': 'outer', 'items': []}

    with pytest.raises(ValueError, match='lists.jsonl exists already: name another file'):
        write_lists(answers(), path)
    assert path.read_text() == '{"user": "inner", "items": []}\n' and os.listdir(tmp_path) == ['lists.jsonl']


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    def kill(temporary: Path) -> None:
        temporary.rename(temporary.with_name(f'{temporary.name}-'))  # or it were removed

    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / 'a.json', kill)
    left, = tmp_path.iterdir()
    left.rename(left.with_name(left.name[:-1]))
    write_json(tmp_path / 'b.json', 1)
    (tmp_path / '.b.json.0.part').touch()
    remove_parts(tmp_path / 'a.json')
    assert sorted(os.listdir(tmp_path)) == ['.b.json.0.part', 'b.json']


def test_what_is_locked_is_waited_for(tmp_path: Path) -> None:
    pytest.importorskip('fcntl')
    entered = threading.Event()

    def other() -> None:
        with locked(tmp_path / 'a.json'):
            entered.set()

    thread = threading.Thread(target=other)
    with locked(tmp_path / 'a.json'), locked(tmp_path / 'b.json'):
        thread.start()
        assert not entered.wait(0.3)
    assert entered.wait(30)
    thread.join()
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a.lock', 'b.lock']


@pytest.mark.parametrize('write', [
    lambda path: save_weights({'w': torch.zeros(9000)}, path),
    lambda path: AtomicCheckpoints().save_checkpoint({'w': torch.zeros(9000)}, path),
    lambda path: write_json(path, 'a' * 9000),
    lambda path: write_lists([{'user': 'a' * 9000, 'items': []}], path),
], ids=['weights', 'checkpoint', 'json', 'lists'])
def test_a_full_disk_is_told_with_the_name(write: Callable[[Path], None], tmp_path: Path,
                                           full_disk: Callable[[int], ContextManager[None]]) -> None:
    with full_disk(4096), pytest.raises(OSError, match='a.jsonl cannot be written .*: is the disk full[?]$'):
        write(tmp_path / 'a.jsonl')
    assert not list(tmp_path.iterdir())
    (tmp_path / 'b.json').write_text('1')
    with full_disk(4096), pytest.raises(
            OSError, match='b.json cannot be written .*full[?] What stood there before is kept'):
        write_json(tmp_path / 'b.json', 'a' * 9000)
    assert (tmp_path / 'b.json').read_text() == '1'


def test_a_full_disk_while_data_are_saved(tmp_path: Path, full_disk: Callable[[int], ContextManager[None]]) -> None:
    data = interaction_data('tiny', (list(map(str, range(900))), ['b'] * 900), checksum='f' * 64)
    with full_disk(4096), pytest.raises(OSError, match='data.safetensors cannot be written'):
        save_data(data, tmp_path)


def test_blanks_around_ids_count_where_they_are_known(tmp_path: Path) -> None:
    (tmp_path / 'ids.txt').write_text(' id \n----\n 17 \n 18\n19 \n  \n')
    assert read_ids(tmp_path / 'ids.txt', {'17', '18', ' 18', '19 '}) == ['id', '----', '17', ' 18', '19 ']
