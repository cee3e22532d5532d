"""A data set's graph and ids in a run folder: tensors as safetensors, text as JSON; nothing that can run."""
from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Union

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch_geometric.data import HeteroData

from tvdiff_pyg.files import write_atomically, write_json
from tvdiff_pyg.transforms import RATED_BY, RATES

TENSORS = 'data.safetensors'
TEXT = 'ids.json'
_EDGES = ('edge_index', 'edge_label_index', 'val_edge_label_index')
TEXT_FIELDS = ('name', 'checksum', 'dropped', 'user_id', 'item_id', 'item_attributes')


def save_data(data: HeteroData, folder: Path) -> None:
    """Write a data set's edges, original ids and item attributes into a folder."""
    edges = {name: data[RATES][name].contiguous() for name in _EDGES if name in data[RATES]}
    _save_tensors(edges, folder / TENSORS)
    write_json(folder / TEXT, {name: data[name] for name in TEXT_FIELDS})


def has_data(folder: Path) -> bool:
    """Tell whether :func:`save_data` has finished in a folder."""
    return (folder / TEXT).is_file()


def load_data_folder(folder: Path) -> HeteroData:
    """Read back what :func:`save_data` wrote.

    Raises:
        ValueError: a file is missing or broken.
    """
    text, edges = _read(folder / TEXT, _json), _read(folder / TENSORS, load_file)
    data = HeteroData()
    try:
        for name in TEXT_FIELDS:
            data[name] = text[name]
        data['user'].num_nodes, data['item'].num_nodes = len(text['user_id']), len(text['item_id'])
        for name, value in edges.items():
            data[RATES][name] = value
        data[RATED_BY].edge_index = edges['edge_index'].flip(0)
    except (KeyError, TypeError) as error:
        raise ValueError(f'{folder} does not hold a whole run ({error} in its data): train it anew') from error
    return data


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding='utf-8'), parse_constant=lambda _: None)  # NaN is no value, and no JSON


def _read(path: Path, read: Callable[[Path], Any]) -> Any:
    try:
        return read(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f'{path} cannot be read ({error}): the run is not whole, train it anew') from error


def split_checksum(data: HeteroData) -> str:
    """Return the SHA-256 of the held-out edges: two results with the same were measured on the same split."""
    digest = hashlib.sha256()
    for name in _EDGES:
        if name in data[RATES]:
            digest.update(name.encode() + data[RATES][name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_weights(state: Dict[str, Tensor], path: Path) -> None:
    """Write a state dict as safetensors."""
    _save_tensors({name: value.detach().cpu().contiguous() for name, value in state.items()}, path)


def _save_tensors(tensors: Dict[str, Tensor], path: Path) -> None:
    write_atomically(path, lambda temporary: save_file(tensors, temporary), errors=(SafetensorError,))


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes Lightning's checkpoints whole or not at all, beside their place, and without a copy in memory.

    Lightning's own way makes two copies in memory and one in the system's folder for temporary files, and copies that
    one to its place, so that a full disk or a kill can leave half a checkpoint there.
    """

    def save_checkpoint(self, checkpoint: Dict[str, Any], path: Union[str, Path],
                        storage_options: Optional[Any] = None) -> None:
        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        # torch's writer hides what the system said
        write_atomically(place, lambda temporary: torch.save(checkpoint, temporary), errors=(RuntimeError,))


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Load a state dict into a model.

    Raises:
        ValueError: the file cannot be read, or is of another model.
    """
    state = _read(path, load_file)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).strip().splitlines()
        raise ValueError(f'{path} holds the weights of another model: {first[-1].strip()}') from error
