"""Interaction graphs to and from the files of the Open Graph Benchmark (OGB)."""
from __future__ import annotations

import csv
import gzip
import io
import json
import re
import shutil
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData, InMemoryDataset

from tvdiff_pyg.datasets.records import DataError, PathLike, file_sha256, files_checksum
from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.sampling.base import draw_unobserved
from tvdiff_pyg.transforms.edge_types import RATED_BY, RATES
from tvdiff_pyg.transforms.ogb.loading import ogb_module, safe_loading, tensors

_VERSION, _SPLIT = 1, 'given'
_PARTS = {'train': 'edge_index', 'valid': 'val_edge_label_index', 'test': 'edge_label_index'}
_GRAPH_TEXT = ('name', 'checksum', 'dropped', 'item_attributes')
_GRAPH_FILE = 'interaction_graph.json'
_README = """# {name}

A bipartite graph: node types `user` and `item`, one relation `rates`, written by tvdiff_pyg. Users and items are
numbered from 0 each; `user_entidx2name.csv.gz` and `item_entidx2name.csv.gz` hold their original ids. The graph holds
the training edges only. Metric: {eval_metric}. {negatives} They are never an edge of train, valid or test; seed {seed}.
"""


def to_ogb(data: HeteroData, name: str, root: PathLike, *, eval_metric: str = 'mrr', num_negatives: int = 1000,
           seed: int = 0) -> Path:
    """Write an interaction graph and its split with OGB's own ``DatasetSaver``.

    The graph becomes a typed one with the relation ``('user', 'rates', 'item')`` and the training edges. The split is
    that of ``ogbl-citation2`` where the metric is MRR: ``source_node`` and ``target_node``, and in valid and test
    ``target_node_neg``, items to rank each target against. It is that of ``ogbl-collab`` where the metric is Hits@K:
    ``edge``, and in valid and test ``edge_neg``, one pool of pairs that all edges are ranked against. A negative is
    never an edge of any part, and no row of candidates or pool holds one twice: candidates are drawn uniformly from
    the items left; pairs of a pool by a uniform user first. Original ids go to OGB's ``mapping`` folder.

    Args:
        data: the graph as data sets and :class:`~tvdiff_pyg.transforms.HoldOut` give it (of a run's ``Split``,
            its ``data``), with test and validation edges.
        name: a name that OGB takes, ``ogbl-`` and then letters, digits, ``-`` and ``_``.
        root: the folder to write ``submission_NAME/`` into.
        eval_metric: ``mrr``, or ``hits@K``.
        num_negatives: candidates a held-out edge (MRR), or pairs in the pool (Hits@K). Memory: 8 bytes a candidate.
        seed: seed of the negatives.

    Returns:
        The folder, with ``meta_dict.pt`` and the data set in it; :func:`load_ogb` reads it, wherever it is moved.

    Raises:
        ValueError: an argument is out of range, the folder is there already, the graph has no validation or test
            edges, or holds features or edge attributes, which are not written.
        ImportError: ogb is not installed.
    """
    saver_type = ogb_module('io').DatasetSaver
    if not re.fullmatch(r'ogbl-[A-Za-z0-9][A-Za-z0-9_-]*', name):
        raise ValueError(f"'name' must be ogbl- and then letters, digits, '-' and '_', ogbl-lastfm say; got {name!r}")
    k = _hits_k(eval_metric)
    folder = Path(root) / f"submission_{name.replace('-', '_')}"
    if folder.exists():
        raise ValueError(f"'root' already holds {folder.name}: delete {folder}, or choose another 'name'")
    edges, sizes = _checked_edges(data)
    split = _with_negatives(edges, sizes, k, num_negatives, torch.Generator().manual_seed(seed))
    negatives = (f'Each held-out edge has {num_negatives} candidates, items drawn uniformly.' if k is None else
                 f'A pool of {num_negatives} pairs is shared by all edges of a part, users drawn uniformly.')
    readme = _README.format(name=name, eval_metric=eval_metric, negatives=negatives, seed=seed)
    graph = {'edge_index_dict': {RATES: edges['train'].numpy()}, 'num_nodes_dict': dict(zip(('user', 'item'), sizes))}
    silence = io.StringIO()
    try:
        with redirect_stdout(silence), redirect_stderr(silence), tempfile.TemporaryDirectory() as mapping:
            saver = saver_type(name, is_hetero=True, version=_VERSION, root=str(Path(root) / 'submission'))
            saver.save_graph_list([graph])
            saver.save_split(split, split_name=_SPLIT)
            _write_mapping(data, Path(mapping), readme)
            saver.copy_mapping_dir(mapping)
            saver.save_task_info('link prediction', eval_metric)
            saver.get_meta_dict()
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # half a data set would look like a whole one
        raise
    return folder


def load_ogb(name: str, root: PathLike) -> InMemoryDataset:
    """Load an OGB link data set through ``ogb.linkproppred.PygLinkPropPredDataset``, and never run what a file holds.

    OGB's files come over plain HTTP without a checksum, ogb calls a bare ``torch.load``, and PyG opens
    ``processed/pre_transform.pt`` with ``weights_only=False``. Here all of that, also in the returned
    ``get_edge_split()``, goes through torch's restricted unpickler: ``TORCH_FORCE_WEIGHTS_ONLY_LOAD`` is set for the
    time of the call, and ``torch.serialization.safe_globals`` allows, beside torch's own types, exactly this and
    nothing that the program allows elsewhere:

    - of PyG, for processed graphs: ``Data``, ``GlobalStorage``, ``DataEdgeAttr``, ``DataTensorAttr``;
    - of numpy, for splits and numbers of nodes: ``ndarray``, ``dtype``, ``_reconstruct`` and ``scalar``, under the
      module names of version 1 (OGB's own files) and 2, and ``bytes``. The names lead to readers of ours, which know
      int32, int64, float32 and float64. numpy's own would not do: whoever may call ``numpy.ndarray`` makes objects of
      any bytes in the file, which crashes Python at the least.

    Other threads that load files meanwhile are held to the same.

    Args:
        name: name of the data set, ``ogbl-collab`` say, or the name given to :func:`to_ogb`.
        root: the folder that holds ``submission_NAME/``, as ``DatasetSaver`` writes it, or ``ogbl_collab/``, as OGB
            distributes it. Where neither is there, ogb downloads into it; it asks first above 1 GB.

    Returns:
        A ``PygLinkPropPredDataset``: ``dataset[0]`` is the graph of the training edges, ``get_edge_split()`` the split,
        in tensors.

    Raises:
        DataError: the data set cannot be downloaded or read, or a file asks for a type that is not allowed.
        ImportError: ogb is not installed.
    """
    dataset_type = _dataset_type()
    submission = Path(root) / f"submission_{name.replace('-', '_')}"
    if submission.is_dir():
        with safe_loading(submission):
            meta = torch.load(submission / 'meta_dict.pt', weights_only=True)
            folder = submission / '_'.join(name.split('-')[1:])
            meta = {**meta, 'dir_path': str(folder)}  # it holds the place where the data set was written
            return dataset_type(name, meta_dict=meta)
    folder = next((path for path in (Path(root) / f"{name.replace('-', '_')}{suffix}" for suffix in ('_pyg', ''))
                   if path.is_dir()), Path(root) / name.replace('-', '_'))
    try:
        with safe_loading(folder):
            return dataset_type(name, root=str(root))
    finally:
        if folder.is_dir() and not any(path.is_file() for path in folder.rglob('*')):
            shutil.rmtree(folder)  # left by a download that failed: ogb would take it for an old version and ask


def from_ogb(dataset: InMemoryDataset) -> HeteroData:
    """Turn an OGB link data set into an interaction graph, as :mod:`tvdiff_pyg.datasets` gives it.

    A typed graph with one relation between two node types is bipartite: its heads become users and its tails items,
    and what :func:`to_ogb` wrote comes back as it was. In a graph of one node type, ``ogbl-collab`` say, every node
    is both a user and an item, and a pair of an undirected graph counts in both directions. Pairs are sorted and
    freed of copies; held-out pairs that are in an earlier part are dropped and counted in ``data.dropped``. Negatives
    and features are left out: they are in ``dataset``.

    Args:
        dataset: what :func:`load_ogb` returned.

    Returns:
        The graph with training, validation and test edges, and ids from the ``mapping`` folder, else indices as text.

    Raises:
        ValueError: the graph has several relations, or a split without pairs of nodes.
        DataError: a file cannot be read, or ids or pairs do not fit the number of nodes.
    """
    folder = Path(dataset.root)
    graph = dataset[0]
    with safe_loading(folder):
        split = tensors(dataset.get_edge_split())
    pairs = {part: _pairs(split[part], folder) for part in _PARTS}
    if 'edge_index_dict' in graph:
        relations = list(graph.edge_index_dict)
        if len(relations) != 1 or relations[0][0] == relations[0][2]:
            raise ValueError(f"'dataset' must have one relation between two node types to be an interaction graph; "
                             f"{dataset.name} has {len(relations)}: {relations[:3]}")
        head, _, tail = relations[0]
        sizes = (int(graph.num_nodes_dict[head]), int(graph.num_nodes_dict[tail]))
        pairs['train'] = graph.edge_index_dict[relations[0]]
        ids = [_read_ids(folder, f'{head}_entidx2name', sizes[0]), _read_ids(folder, f'{tail}_entidx2name', sizes[1])]
    else:
        sizes = (int(graph.num_nodes), int(graph.num_nodes))
        if graph.is_undirected():
            pairs.update({part: torch.cat([pairs[part], pairs[part].flip(0)], dim=1) for part in ('valid', 'test')})
        pairs['train'] = graph.edge_index
        ids = [_read_ids(folder, 'nodeidx2*', sizes[0])] * 2
    text = _read_graph_text(folder, sizes[1])

    data = HeteroData()
    data['user'].num_nodes, data['item'].num_nodes = sizes
    data.user_id, data.item_id = list(ids[0]), list(ids[1])
    seen: List[InteractionMatrix] = []
    dropped = {f'{part}_{what}': 0 for part in ('validation', 'test') for what in ('pairs', 'users', 'items')}
    duplicates = 0
    for part, attribute in _PARTS.items():
        try:
            matrix = InteractionMatrix(pairs[part], *sizes)
        except ValueError as error:
            raise DataError(f"{folder}: {part}: {error}; the data set is broken, get it anew") from error
        user, item = matrix.edge_index
        new = torch.ones_like(user, dtype=torch.bool)
        for earlier in seen:
            new &= ~earlier.contains(user, item)
        data[RATES][attribute] = matrix.edge_index[:, new]
        duplicates += pairs[part].size(1) - user.numel()
        if seen:
            dropped['validation_pairs_seen' if part == 'valid' else 'test_pairs_seen'] = int((~new).sum())
        seen.append(matrix)
    data[RATED_BY].edge_index = data[RATES].edge_index.flip([0])
    data.name = text.get('name', dataset.name)
    data.checksum = text.get('checksum') or files_checksum(
        (path.relative_to(folder).as_posix(), file_sha256(path))
        for part in ('raw', 'split') for path in (folder / part).rglob('*') if path.is_file())
    data.dropped = text.get('dropped', {**dropped, 'duplicate_pairs': duplicates})
    data.item_attributes = text.get('item_attributes', {})
    return data


def _dataset_type() -> Any:
    base: Any = ogb_module('linkproppred').PygLinkPropPredDataset

    class SafeLinkPropPredDataset(base):
        def download(self) -> None:
            if isinstance(self.meta_info, dict):  # of a file: its address is nobody's that we know
                raise DataError(f"{self.raw_dir}: {' or '.join(self.raw_file_names)} is missing; write the data anew")
            super().download()

        def get_edge_split(self, split_type: Optional[str] = None) -> Dict[str, Any]:
            with safe_loading(Path(self.root)):
                split: Dict[str, Any] = tensors(super().get_edge_split(split_type))
            return split

    return SafeLinkPropPredDataset


def _hits_k(eval_metric: str) -> Optional[int]:
    match = re.fullmatch(r'hits@([1-9][0-9]*)|mrr', eval_metric)
    if match is None:
        raise ValueError(f"'eval_metric' must be 'mrr', or 'hits@50' for some K; got {eval_metric!r}")
    return int(match.group(1)) if match.group(1) else None


def _checked_edges(data: HeteroData) -> Tuple[Dict[str, Tensor], Tuple[int, int]]:
    if not isinstance(data, HeteroData) or RATES not in data.edge_types:
        raise ValueError(f"'data' must be a HeteroData with edges {RATES}, got {type(data).__name__}; of a Split, pass "
                         f"its 'data'")
    missing = [name for name in (*_GRAPH_TEXT, 'user_id', 'item_id') if name not in data]
    if missing:
        raise ValueError(f"'data' has no {', '.join(missing)}; build it with tvdiff_pyg.datasets.interaction_data")
    store = data[RATES]
    for part, attribute in _PARTS.items():
        if attribute not in store or store[attribute].size(1) == 0:
            mend = '; apply tvdiff_pyg.transforms.HoldOut first' if part == 'valid' else ''
            raise ValueError(f"'data' has no {part} edges ({attribute}), and OGB wants train, valid and test{mend}")
    extra = [f"{name!r} of {key}" for key, names in ((RATES, _PARTS.values()), ('user', ()), ('item', ()))
             for name in data[key].keys() if name not in (*names, 'num_nodes')]
    if extra:
        raise ValueError(f"'data' holds {', '.join(extra)}: features and edge attributes are not written; remove them "
                         f"from a copy first")
    sizes = (data['user'].num_nodes, data['item'].num_nodes)
    return {part: store[attribute].cpu() for part, attribute in _PARTS.items()}, sizes


def _with_negatives(edges: Dict[str, Tensor], sizes: Tuple[int, int], k: Optional[int], num_negatives: int,
                    generator: torch.Generator) -> Dict[str, Dict[str, np.ndarray]]:
    known = InteractionMatrix(torch.cat(list(edges.values()), dim=1), *sizes)
    unknown = sizes[1] - known.user_degree
    most = int(unknown[torch.cat([edges['valid'][0], edges['test'][0]])].min()) if k is None else int(unknown.sum())
    least = 1 if k is None else k
    if not least <= num_negatives <= most:
        raise ValueError(f"'num_negatives' must lie in {least}..{most} for these data and this metric, got "
                         f"{num_negatives}")
    split: Dict[str, Dict[str, np.ndarray]] = {}
    for part, index in edges.items():
        if k is None:
            split[part] = {'source_node': index[0].numpy(), 'target_node': index[1].numpy()}
        else:
            split[part] = {'edge': index.t().contiguous().numpy()}
        if part == 'train':
            continue
        if k is None:
            wanted = torch.full_like(index[0], num_negatives)
            _, item = draw_unobserved(known, index[0], wanted, generator=generator)
            split[part]['target_node_neg'] = item.view(-1, num_negatives).numpy()
        else:
            split[part]['edge_neg'] = _pool(known, unknown, num_negatives, generator).numpy()
    return split


def _pool(known: InteractionMatrix, unknown: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Draw distinct unknown pairs ``[size, 2]``: a uniform user, of those who have items left, then a uniform item."""
    count = torch.zeros_like(unknown)
    while int(count.sum()) < size:
        free = (count < unknown).nonzero().view(-1)
        drawn = free[torch.randint(free.numel(), (size - int(count.sum()),), generator=generator)]
        count = (count + torch.bincount(drawn, minlength=count.numel())).minimum(unknown)
    users = count.nonzero().view(-1)
    row, item = draw_unobserved(known, users, count[users], generator=generator)
    return torch.stack([users[row], item], dim=1)


def _write_mapping(data: HeteroData, folder: Path, readme: str) -> None:
    (folder / 'README.md').write_text(readme, encoding='utf-8')
    for node_type, ids in (('user', data.user_id), ('item', data.item_id)):
        with gzip.open(folder / f'{node_type}_entidx2name.csv.gz', 'wt', encoding='utf-8', newline='') as file:
            csv.writer(file).writerows([('ent idx', 'ent name'), *enumerate(ids)])
    text = {name: data[name] for name in _GRAPH_TEXT}
    (folder / _GRAPH_FILE).write_text(json.dumps(text, ensure_ascii=False), encoding='utf-8')


def _read_graph_text(folder: Path, num_items: int) -> Dict[str, Any]:
    path = folder / 'mapping' / _GRAPH_FILE
    if not path.is_file():
        return {}
    with safe_loading(path):
        text = json.loads(path.read_text(encoding='utf-8'))
        if not isinstance(text, dict) or set(text) != set(_GRAPH_TEXT):
            raise ValueError(f"it must hold {', '.join(_GRAPH_TEXT)}")
        if any(len(values) != num_items for values in text['item_attributes'].values()):
            raise ValueError(f"'item_attributes' must hold {num_items} values each, one an item")
    return text


def _read_ids(folder: Path, pattern: str, size: int) -> List[str]:
    """Read original ids of a mapping file, whose lines after the first are index and id; else name indices."""
    paths = list((folder / 'mapping').glob(f'{pattern}.csv.gz'))
    if len(paths) != 1:
        return [str(index) for index in range(size)]
    try:
        with gzip.open(paths[0], 'rt', encoding='utf-8', newline='') as file:
            rows = list(csv.reader(file, strict=True))[1:]
    except (OSError, EOFError, ValueError, csv.Error) as error:
        raise DataError(f'{paths[0]}: cannot be read ({error}); get the data set anew') from error
    if len(rows) != size or any(len(row) < 2 or row[0] != str(index) for index, row in enumerate(rows)):
        raise DataError(f'{paths[0]}: must hold a header and then index and id of the nodes 0 to {size - 1}, in order')
    return [row[1] for row in rows]


def _pairs(part: Mapping[str, Tensor], folder: Path) -> Tensor:
    if 'edge' in part:
        return part['edge'].t()
    if 'source_node' in part and 'target_node' in part:
        return torch.stack([part['source_node'], part['target_node']])
    raise ValueError(f"'dataset' must split pairs of nodes ('edge', or 'source_node' and 'target_node'); {folder.name} "
                     f"holds {', '.join(map(repr, part))}: a knowledge graph is no interaction graph")
