"""A data set's graph and ids in a run folder: tensors as safetensors, text as JSON; nothing that can run."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch_geometric.data import HeteroData

from tvdiff_pyg.transforms import RATED_BY, RATES
from tvdiff_pyg.training.files import write_atomically, write_json

TENSORS = 'data.safetensors'
TEXT = 'ids.json'
_EDGES = ('edge_index', 'edge_label_index', 'val_edge_label_index')


def save_data(data: HeteroData, folder: Path) -> None:
    """Write a data set's edges, original ids and item attributes into a folder."""
    store = data[RATES]
    edges = {name: store[name].contiguous() for name in _EDGES if name in store}
    write_atomically(folder / TENSORS, lambda path: save_file(edges, path))
    nodes = {kind: {name: value for name, value in data[kind].items() if isinstance(value, list)}
             for kind in ('user', 'item')}
    write_json(folder / TEXT, {'name': data.name, 'checksum': data.checksum, 'dropped': dict(data.dropped), **nodes})


def load_data_folder(folder: Path) -> HeteroData:
    """Read back what :func:`save_data` wrote."""
    text: Dict[str, Any] = json.loads((folder / TEXT).read_text(encoding='utf-8'))
    edges = load_file(folder / TENSORS)
    data = HeteroData()
    data.name, data.checksum, data.dropped = text['name'], text['checksum'], text['dropped']
    for kind in ('user', 'item'):
        data[kind].num_nodes = len(text[kind]['original_id'])
        for name, value in text[kind].items():
            data[kind][name] = value
    for name, value in edges.items():
        data[RATES][name] = value
    data[RATED_BY].edge_index = edges['edge_index'].flip(0)
    return data


def save_weights(state: Dict[str, Tensor], path: Path) -> None:
    """Write a state dict as safetensors."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    write_atomically(path, lambda temporary: save_file(tensors, temporary))


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Load a state dict into a model.

    Raises:
        ValueError: the file is of another model.
    """
    try:
        model.load_state_dict(load_file(path))
    except RuntimeError as error:
        first = str(error).strip().splitlines()
        raise ValueError(f'{path} holds the weights of another model: {first[-1].strip()}') from error
