"""Lists for everybody: a run's against other ways to make them, and FAISS against exact search.

``python -m benchmarks.lists --run RUN [-k 20] [--json FILE]``

Each way makes the lists of all users, or of as many as it is given, in a process of its own, whose peak memory counts
the run's data and weights as well:

* ``recommend_all``: what ``tvdiff recommend RUN --all`` does, ids and files left out, with lists as the test makes
  them, of held-out items as well; ``parquet``: with ids and a file;
* ``dense``: the same model by the paper's reverse process over rows of the catalogue, some blocks standing for all;
* ``lightgcn``: the masked product of users and items of our LightGCN, at its usual width of 64;
* ``pyg_recommend``: ``torch_geometric.nn.LightGCN.recommend``, 64 wide, which masks nothing;
* ``implicit``: ``recommend`` of the implicit library, 64 wide, with what was seen filtered out;
* ``exact``, ``flat``, ``ivf``, ``hnsw``: 100 items for each of some query vectors, by a matrix product or by FAISS.

LightGCN and implicit have random factors: it is only time that is measured. A way's seconds are what it needs once
(``setup_s``) and what it needs for the users (``s``).
"""
from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

os.environ.setdefault('THP_MEM_ALLOC_ENABLE', '1')  # as the command line does; before torch allocates

import torch  # noqa: E402
import torch_geometric.nn  # noqa: E402
from torch import Tensor  # noqa: E402
from torch_geometric.utils import cumsum  # noqa: E402

from benchmarks.speed import child, once  # noqa: E402
from tvdiff_pyg.files import write_json  # noqa: E402
from tvdiff_pyg.nn import TVDiff  # noqa: E402
from tvdiff_pyg.nn.models import LightGCN  # noqa: E402
from tvdiff_pyg.nn.query_encoder import QueryEncoder  # noqa: E402
from tvdiff_pyg.retrieval import BLOCK_SIZE, largest, top_k  # noqa: E402
from tvdiff_pyg.training.environment import peak_rss_mb, versions  # noqa: E402
from tvdiff_pyg.training.export import LENGTH, build_index, histories  # noqa: E402
from tvdiff_pyg.training.lists import write_lists  # noqa: E402
from tvdiff_pyg.training.run import Run  # noqa: E402
from tvdiff_pyg.utils import csr_tensor  # noqa: E402

WIDTH, BLOCK, DENSE_BLOCKS = 64, 4096, 4
Way = Callable[[Run, argparse.Namespace], Dict[str, Any]]


def _rank(run: Run, scorer: Any, users: Tensor, k: int) -> float:
    return once(lambda: [top_k(scorer, block, k, run.split.seen_when_testing) for block in users.split(BLOCK_SIZE)])


def recommend_all(run: Run, options: argparse.Namespace) -> Dict[str, Any]:
    """Rank all users by the run's own scorer."""
    users = torch.arange(run.model.num_users)
    setup = once(run.model.scorer)
    return {'setup_s': setup, 's': _rank(run, run.model.scorer(), users, options.k), 'users': users.numel()}


def parquet(run: Run, options: argparse.Namespace) -> Dict[str, Any]:
    """Rank all users into a Parquet file with the original ids."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / 'lists.parquet'
        taken = once(lambda: write_lists(run.recommend_all(options.k, held_out=True), file))
        return {'setup_s': 0.0, 's': taken, 'users': run.model.num_users, 'bytes': file.stat().st_size}


def dense(run: Run, options: argparse.Namespace) -> Dict[str, Any]:
    """Rank some blocks of users by the whole reverse process."""
    model = run.model
    assert isinstance(model, TVDiff)
    model.engine = 'dense'
    users = torch.arange(min(DENSE_BLOCKS * BLOCK_SIZE, model.num_users))
    setup = once(model.scorer)
    return {'setup_s': setup, 's': _rank(run, model.scorer(), users, options.k), 'users': users.numel()}


def lightgcn(run: Run, options: argparse.Namespace) -> Dict[str, Any]:
    """Rank all users by our LightGCN."""
    model = LightGCN(run.split.train, WIDTH)
    users = torch.arange(model.num_users)
    setup = once(model.scorer)
    return {'setup_s': setup, 's': _rank(run, model.scorer(), users, options.k), 'users': users.numel()}


def pyg_recommend(run: Run, options: argparse.Namespace) -> Dict[str, Any]:
    """Rank all users by PyG's own method, which takes the hops anew at every call, over torch's sparse product."""
    train = run.split.train
    size = train.num_users + train.num_items
    model = torch_geometric.nn.LightGCN(size, WIDTH, 3)
    edge_index = train.node_edge_index
    order = edge_index[0].argsort(stable=True)  # symmetric: rows may as well be sources
    rowptr = cumsum(torch.bincount(edge_index[0], minlength=size))
    adj_t = csr_tensor(rowptr, edge_index[1][order], torch.ones(order.numel()), (size, size))
    users, items = torch.arange(train.num_users), torch.arange(train.num_users, size)
    with torch.no_grad():
        s = once(lambda: [model.recommend(
            adj_t, src_index=block, dst_index=items, k=options.k) for block in users.split(BLOCK)])
    return {'setup_s': 0.0, 's': s, 'users': users.numel()}


def implicit(run: Run, options: argparse.Namespace) -> Dict[str, Any]:
    """Rank all users by the implicit library."""
    import numpy as np
    from implicit.cpu.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix

    train = run.split.train
    seen = [part.edge_index for part in run.split.seen_when_testing]
    user, item = torch.cat(seen, 1).numpy()
    x = csr_matrix((np.ones(user.size, np.float32), (user, item)), (train.num_users, train.num_items))
    model = AlternatingLeastSquares(WIDTH, num_threads=torch.get_num_threads())
    draw = np.random.default_rng(0)
    model.user_factors = draw.standard_normal((train.num_users, WIDTH), dtype=np.float32)
    model.item_factors = draw.standard_normal((train.num_items, WIDTH), dtype=np.float32)
    users = np.arange(train.num_users)
    return {'setup_s': 0.0, 's': once(lambda: model.recommend(users, x, options.k, filter_already_liked_items=True)),
            'users': users.size}


def search(kind: str) -> Way:
    """Return the way that looks up query vectors."""
    def way(run: Run, options: argparse.Namespace) -> Dict[str, Any]:
        assert isinstance(run.model, TVDiff)
        encoder = QueryEncoder.of(run.model)
        users, length = torch.arange(min(options.queries, run.model.num_users)), min(LENGTH, run.model.num_items)
        with torch.no_grad():
            query = encoder(*histories(run.split.train, users))
        if kind == 'exact':
            return {'setup_s': 0.0, 'users': users.numel(), 's': once(lambda: [
                largest(block @ encoder.table.t(), length) for block in query.split(BLOCK_SIZE)])}
        import faiss

        faiss.omp_set_num_threads(torch.get_num_threads())
        started = time.perf_counter()
        index, about = build_index(encoder.table, query, kind)
        setup = time.perf_counter() - started
        return {'setup_s': setup, 'users': users.numel(), 's': once(lambda: index.search(query.numpy(), length)),
                **about}
    return way


WAYS: Dict[str, Way] = {
    **{way.__name__: way for way in (recommend_all, parquet, dense, lightgcn, pyg_recommend, implicit)},
    **{kind: search(kind) for kind in ('exact', 'flat', 'ivf', 'hnsw')}}


def main(argv: Optional[List[str]] = None) -> Dict[str, Any]:
    """Measure, print and write."""
    arguments = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('--run', required=True, help='folder of a finished run of tv-diff')
    parser.add_argument('-k', type=int, default=20)
    parser.add_argument('--queries', type=int, default=2048, help='query vectors to search for')
    parser.add_argument('--ways', nargs='+', choices=list(WAYS), default=list(WAYS))
    parser.add_argument('--json', default=None)
    parser.add_argument('--here', choices=list(WAYS), help='measure in this process')
    options = parser.parse_args(arguments)
    if options.here:
        run = Run.load(options.run)
        loaded = peak_rss_mb()
        print(json.dumps({**WAYS[options.here](run, options), 'loaded_mb': round(loaded, 1),
                          'peak_mb': round(peak_rss_mb(), 1)}))
        return {}
    record: Dict[str, Any] = {'k': options.k, 'length': LENGTH, 'ways': {}}
    for name in options.ways:
        way = child('benchmarks.lists', [*arguments, '--here', name])
        way['users_per_s'] = round(way['users'] / way['s'], 1)
        record['ways'][name] = way
        print(f'{name:>14}  ' + '  '.join(f'{key} {value:.4g}' if isinstance(value, float) else f'{key} {value}'
                                          for key, value in way.items()), flush=True)
    run = Run.load(options.run)
    record.update({'dataset': run.split.data.name, 'users': run.model.num_users, 'items': run.model.num_items,
                   'hidden_channels': run.recipe.model.hidden_channels, 'reverse_steps': run.recipe.diffusion.num_steps,
                   'threads': torch.get_num_threads(), 'machine': platform.machine(), 'versions': versions()})
    if options.json:
        write_json(Path(options.json), record)
    return record


if __name__ == '__main__':
    main()
