"""Generated settings on tiny generated data: a run that can be read back, or one clear error and nothing left."""
from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any, Dict, List

import pytest
import torch

pytest.importorskip('hypothesis')
pytest.importorskip('pytorch_lightning')
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from tvdiff_pyg.training import Recipe, Run, TrainingDiverged, fit  # noqa: E402
from tvdiff_pyg.training.recipe import MODELS  # noqa: E402

EXAMPLES = settings.get_profile('many').max_examples // 5
many = settings(settings.get_profile('many'), max_examples=EXAMPLES)


COUNTS = {'all': 0, 'trained': 0}


def _choice(*values: Any) -> st.SearchStrategy:
    return st.sampled_from(values)


NAMES = _choice('tv-diff', 'tv-diff', 'tv-diff', 'diffrec', 'lightgcn', 'bpr-mf', 'ease', 'item-knn', 'gf-cf',
                'popularity')
VALUES = {
    'model': {'hidden_channels': _choice(1, 3, [4, 2], [1], 0), 'time_channels': _choice(1, 2, 5),
              'time_type': _choice('cat', 'align', 'gate'), 'dropout': _choice(0.0, 0.5, 0.99, 1.0),
              'normalization': _choice('sym', 'left', 'linkprop', 'raw', 'none'),
              'engine': _choice('factored', 'dense'), 'energy_items': _choice(None, 1, 7, 1000),
              'energy_rank': _choice(0, 1, 4), 'reweight': st.booleans(),
              'num_layers': _choice(1, 2, 0), 'regularization': _choice(0.0, 1e-3, 1e9),
              'num_neighbors': _choice(1, 5, 10 ** 6), 'alpha': _choice(0.0, 1.0)},
    'diffusion': {'schedule': _choice('linear-var', 'linear', 'cosine', 'binomial'), 'num_steps': _choice(1, 2, 50, 0),
                  'scale': _choice(0.0, 1e-30, 1e-4, 1.0, 1e30), 'beta_min': _choice(1e-8, 0.1, 0.9),
                  'beta_max': _choice(1e-8, 0.2, 0.999), 'prediction': _choice('x0', 'eps'),
                  'timesteps': _choice('uniform', 'loss-history')},
    'loss': {'entropy': _choice('bce', 'nll', 'bpr'), 'temperature': _choice(0.0, 1.0, 1e-9, 1e30),
             'reduction': _choice('mean', 'sum')},
    'sampler': {'name': _choice('ar-gsp', 'uniform', 'popularity'), 'gamma': _choice(1e-9, 0.05, 1.0, 0.0),
                'weights': _choice('score', 'flat'), 'lam': _choice(0.0, 3.0, 1e3),
                'exponent': _choice(0.0, 0.75, -1.0), 'pool_size': _choice(None, 1, 8, 10 ** 6),
                'warmup_epochs': _choice(0, 1)},
    'training': {'batch_size': _choice(1, 3, 10 ** 6), 'num_parts': _choice(1, 2, 5), 'lr': _choice(1e-3, 1e-30, 1e30),
                 'optimizer': _choice('adam', 'row-lazy-adam'), 'lr_decay': _choice(1.0, 0.5),
                 'beta2': _choice(0.999, 0.0), 'average': _choice(None, 0.0, 0.99), 'weight_decay': _choice(0.0, 0.1),
                 'patience': _choice(1, 10), 'thermo_users': _choice(0, 2, 1000), 'ks': _choice(None, [1], [20, 5])},
}
ALL = [(group, setting) for group, options in VALUES.items() for setting in options]


@st.composite
def recipes(draw: st.DrawFn) -> Dict[str, Dict[str, Any]]:
    """Draw a model and up to six of its settings: more, and nearly every one has something wrong."""
    name = draw(NAMES)
    own = [place for place in ALL if MODELS[name].has(*place)]
    out: Dict[str, Dict[str, Any]] = {'model': {'name': name}, 'training': {}}
    if MODELS[name].has('model', 'hidden_channels'):
        out['model']['hidden_channels'] = 3
    for group, setting in draw(st.lists(st.sampled_from(own), max_size=6, unique=True)) if own else []:
        out.setdefault(group, {})[setting] = draw(VALUES[group][setting])
    return out


SHAPES = st.tuples(_choice(9, 1, 3), _choice(23, 20, 19), _choice(0.4, 0.15, 1.0), st.integers(0, 9))


def _lines(users: int, items: int, density: float, seed: int) -> List[str]:
    """A graph that may be complete, or nearly empty; every item has a user, or there would be fewer."""
    seen = torch.rand(users, items, generator=torch.Generator().manual_seed(seed)) < density
    seen[torch.arange(items) % users, torch.arange(items)] = True
    return ['user,item', *(f'u{user},i{item}' for user, item in seen.nonzero().tolist())]


@many
@given(recipes(), SHAPES, st.integers(1, 2), _choice('holdout', 'paper'))
def _any_settings(values: Dict[str, Any], shape: Any, epochs: int, protocol: str) -> None:
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        folder = Path(name)
        (folder / 'data.csv').write_text('\n'.join(_lines(*shape)) + '\n')
        values = {**values, 'dataset': {'name': 'interaction-file', 'path': str(folder / 'data.csv')}}
        if MODELS[values['model']['name']].has('training', 'max_epochs'):
            values['training'] = {**values['training'], 'max_epochs': epochs}
        COUNTS['all'] += 1
        try:
            run = fit(Recipe.from_dict(values), folder / 'run', protocol=protocol, progress=False)
        except (ValueError, TrainingDiverged) as error:
            assert str(error) and '\n' not in str(error), repr(str(error))
            diverged = isinstance(error, TrainingDiverged)
            finished = (folder / 'run' / 'metrics.json').exists()
            assert finished == (diverged and 'is kept in the run' in str(error))
            assert not finished or Run.load(folder / 'run').metrics['stopped'] == 'diverged'
            return
        COUNTS['trained'] += 1
        users, items = run.split.train.num_users, run.split.train.num_items
        assert all(0 <= value <= 1 for value in run.metrics['test'].values())
        read = Run.load(folder / 'run')
        assert read.evaluate().mean == run.metrics['test']
        lists = read.recommend(read.split.data.user_id, min(20, items))
        for user, answer in enumerate(lists):
            seen = {item for part in read.split.known
                    for item in part.rows(torch.tensor([user]))[1].tolist()}
            names = [item['item'] for item in answer['items']]
            assert len(set(names)) == len(names) == min(20, items - len(seen))
            assert not seen & {read.index('item')[item] for item in names}
        assert len(lists) == users


def test_any_settings() -> None:
    _any_settings()
    assert COUNTS['trained'] > COUNTS['all'] / 5 and COUNTS['all'] >= EXAMPLES, COUNTS  # most are not refused
