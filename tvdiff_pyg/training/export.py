"""``tvdiff export``: a run as an encoder, an item table and a search index."""
from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import torch
from torch import Tensor

from tvdiff_pyg.datasets.records import TextPairs
from tvdiff_pyg.exported import ABOUT, ENCODER, FORMAT, INDEX, ITEMS, PROGRAM, TABLE
from tvdiff_pyg.files import write_atomically, write_json
from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn import TVDiff
from tvdiff_pyg.nn.query_encoder import QueryEncoder
from tvdiff_pyg.retrieval import largest
from tvdiff_pyg.thermodynamics import sample_users
from tvdiff_pyg.training.environment import versions
from tvdiff_pyg.training.folder import RunError
from tvdiff_pyg.training.run import Run
from tvdiff_pyg.training.storage import save_weights

INDEXES = ('flat', 'ivf', 'hnsw')
TOLERANCE = 1e-5  # of the encoder program against the model, relative to the largest number
QUERIES = 1000  # users that both are compared on, and that an index is measured by
LENGTH = 100  # of the lists by which the recall of an approximate index is measured
RECALL = 0.99  # that its search is widened for


def export_run(run: Run, out: Path, index: Optional[str] = None,
               new_pairs: Optional[TextPairs] = None) -> Dict[str, Any]:
    """Write a run's query encoder, item table and ids, and perhaps a FAISS index, and return what ``export.json`` says.

    The encoder is a ``torch.export`` program of two inputs, the items of all people one after the other and where each
    person's start. It is compared with the model on up to 1,000 users before anything is kept.

    Args:
        run: a finished run of TV-Diff or DiffRec.
        out: a folder that does not exist yet.
        index: ``flat`` (exact), ``ivf`` or ``hnsw`` (approximate, their search widened until lists of 100 hold 99 % of
            the exact ones, as far as that goes; what was reached is measured and written); ``None`` for none.

    Raises:
        RunError: ``out`` exists, or the exported encoder is not the model.
        ValueError: a model whose scores are no inner products of such vectors, an unknown index, or ``new_pairs``
            without a new item of a known user.
        ImportError: an index without faiss.
    """
    if index is not None and index not in INDEXES:
        raise ValueError(f"'index' must be one of {', '.join(INDEXES)}; got '{index}'")
    if out.exists():
        raise RunError(f'{out} exists already: name another folder with --out')
    part = out.with_name(f'.{out.name}.part')
    busy = f'{part} is there: an export to {out} goes on, or was killed; remove it in the second case'
    if part.exists():  # said now, not after minutes
        raise RunError(busy)
    if not isinstance(run.model, TVDiff):
        raise ValueError(f"a {run.metrics['model']} model has no query encoder: export a run of tv-diff or diffrec")
    encoder = QueryEncoder.of(run.model)
    new_items: List[Dict[str, str]] = []
    new: Optional[Dict[str, int]] = None
    if new_pairs is not None:
        new_items, new = append_new_items(run, encoder, new_pairs)
    people, length = torch.export.Dim('people', min=1), torch.export.Dim('length', min=1)
    with torch.no_grad():
        program = torch.export.export(encoder, (torch.tensor([0, 1, 0]), torch.tensor([0, 2])),
                                      dynamic_shapes=({0: length}, {0: people}))
    users = sample_users(run.split.train, QUERIES, torch.Generator().manual_seed(0))
    item, offset = histories(run.split.train, users)
    with torch.no_grad():
        query = program.module()(item, offset)
    difference = _difference(run, users, query, encoder.table[:run.model.num_items])
    if not difference <= TOLERANCE:
        raise RunError(f'the exported encoder differs from the model by {difference:.1e} of the largest score: this is '
                       f'a bug, please report it with the versions of the run')
    about: Dict[str, Any] = {
        'format': FORMAT, 'model': run.metrics['model'], 'dataset': run.metrics['dataset'],
        'items': encoder.table.size(0), 'new': new, 'width': encoder.table.size(1), 'compared_users': offset.numel(),
        'difference': difference, 'encoder': _config(run), 'index': None, 'versions': versions()}
    faiss_index = None
    if index is not None:
        faiss_index, about['index'] = build_index(encoder.table, query, index)
    try:
        part.mkdir(parents=True)
    except FileExistsError as error:
        raise RunError(busy) from error
    try:
        content = io.BytesIO()  # where a file cannot be written, torch's writer ends the process
        torch.export.save(program, content)
        write_atomically(part / PROGRAM, lambda path: path.write_bytes(content.getbuffer()))
        save_weights(encoder.state_dict(), part / ENCODER)
        save_weights({'table': encoder.table}, part / TABLE)
        write_json(part / ITEMS, [run.item(number) for number in range(run.model.num_items)] + new_items)
        if faiss_index is not None:
            import faiss

            index_bytes = faiss.serialize_index(faiss_index)  # its writer of files is silent about the last of them
            write_atomically(part / INDEX, lambda path: path.write_bytes(index_bytes.data))
        about['bytes'] = {path.name: path.stat().st_size for path in sorted(part.iterdir())}
        write_json(part / ABOUT, about)
        part.rename(out)  # in one step: a reader finds all of it or nothing
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return about


def append_new_items(run: Run, encoder: QueryEncoder,
                     pairs: TextPairs) -> Tuple[List[Dict[str, str]], Dict[str, int]]:
    """Let an encoder's items be followed by those that the run does not know, from their pairs with users it knows.

    Args:
        run: a run of TV-Diff.
        encoder: its encoder, which is changed.
        pairs: users and items by their original ids; see :func:`export_run`.

    Returns:
        The new items in their order, and how many items, pairs, and pairs that were left out.

    Raises:
        ValueError: there is no new item of a known user.
    """
    users, known, model = run.index('user'), run.index('item'), run.model
    assert isinstance(model, TVDiff)
    unique = dict.fromkeys(zip(*pairs))
    taken = [(user, item) for user, item in unique if item not in known and user in users]
    about = {'items': 0, 'pairs': len(taken), 'known_item': sum(item in known for _, item in unique)}
    about['unknown_user'] = len(unique) - len(taken) - about['known_item']
    if not taken:
        raise ValueError(f"'new_pairs' holds no new item of a known user: of {len(unique)} pairs {about['known_item']} "
                         f"are of items that were trained on, {about['unknown_user']} of unknown users")
    number = {name: position for position, name in enumerate(dict.fromkeys(item for _, item in taken))}
    about['items'] = len(number)
    edge_index = torch.tensor([[users[user], number[item]] for user, item in taken]).t()
    encoder.append(model.new_item_codes(edge_index, len(number)))
    return [{'item': name} for name in number], about


def _config(run: Run) -> Dict[str, Any]:
    """Return what :meth:`QueryEncoder.from_state` needs besides the tensors."""
    model, process = run.recipe.model, run.recipe.diffusion
    return {'model': model.name, 'hidden_channels': model.hidden_channels, 'time_channels': model.time_channels,
            'time_type': model.time_type, 'schedule': {
                'name': process.schedule, 'num_steps': process.num_steps, 'scale': process.scale,
                'beta_min': process.beta_min, 'beta_max': process.beta_max}}


def histories(interactions: InteractionMatrix, users: Tensor) -> Tuple[Tensor, Tensor]:
    """Return what the encoder takes of some users: their items one after the other, and where each user's start."""
    row, item = interactions.rows(users)
    count = torch.bincount(row, minlength=users.numel())
    return item, count.cumsum(0) - count


def _difference(run: Run, users: Tensor, query: Tensor, table: Tensor) -> float:
    """Return the largest difference to the model's own scores, relative to the largest score."""
    scorer, found = run.model.scorer(), []
    for block, vectors in zip(users.split(128), query.split(128)):
        scores = scorer(block)
        found.append(torch.stack([(vectors @ table.t() - scores).abs().max(), scores.abs().max()]))
    worst, scale = torch.stack(found).amax(0).tolist()  # NaN where there is one, which Python's max may drop
    return worst / max(scale, 1e-30)


def build_index(table: Tensor, query: Tensor, kind: str) -> tuple:
    """Build a FAISS index for inner products and measure it.

    Args:
        table: item vectors ``[N, d]``.
        query: query vectors to measure by ``[Q, d]``.
        kind: ``flat``, ``ivf`` or ``hnsw``.

    Returns:
        The index, and what is known of it: its kind, its search setting, and ``recall@K``, the share of the exact list
        that it finds.
    """
    try:
        import faiss
    except ImportError as error:
        raise ImportError(f'a FAISS index needs faiss ({error}): pip install "tvdiff-pyg[faiss]"') from error
    vectors, queries = table.contiguous().numpy(), query.contiguous().numpy()
    size, width = vectors.shape
    k = min(LENGTH, size)
    about: Dict[str, Any] = {'kind': kind}
    if kind == 'flat':
        index: Any = faiss.IndexFlatIP(width)
        index.add(vectors)
        return index, {**about, f'recall@{k}': 1.0}
    if kind == 'ivf':
        lists = max(1, min(round(4 * size ** 0.5), size // 40))  # faiss wants 39 vectors a list to train on
        quantizer = faiss.IndexFlatIP(width)
        index = faiss.IndexIVFFlat(quantizer, width, lists, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors)
        index.add(vectors)
        setting, most = 'nprobe', lists
        target: Any = index
    else:
        index = faiss.IndexHNSWFlat(width, 32, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 200
        index.add(vectors)
        setting, most, target = 'efSearch', size, index.hnsw
    exact = torch.cat([largest(block @ table.t(), k).items for block in query.split(128)])
    value = k if kind == 'hnsw' else 1
    while True:
        setattr(target, setting, min(value, most))
        found = torch.from_numpy(index.search(queries, k)[1])
        hits = _recall(found, exact)
        if hits >= RECALL or value >= most:
            return index, {**about, setting: min(value, most), f'recall@{k}': round(hits, 6)}
        value *= 2


def _recall(found: Tensor, exact: Tensor) -> float:
    """Return the share of the exact lists ``[Q, k]`` that was found; -1 marks places that an index left empty."""
    both = torch.cat([found, exact], dim=1).sort(dim=1).values
    twice = (both[:, 1:] == both[:, :-1]) & (both[:, 1:] >= 0)
    return float(twice.sum(1).double().mean() / exact.size(1))
