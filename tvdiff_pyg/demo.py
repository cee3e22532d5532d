"""``tvdiff demo``: train on real ratings, compare, and recommend movies to two people."""
from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Dict, List, Tuple

from tvdiff_pyg.nn import EASE, Popularity
from tvdiff_pyg.training import Recipe, Run, fit, load_recipe
from tvdiff_pyg.training.describe import describe_item, describe_run
from tvdiff_pyg.training.people import person, sample_people

RECIPE = 'movielens-small'
EASE_REGULARIZATION = (10.0, 30.0, 100.0, 300.0)
COLUMNS = ('recall@20', 'ndcg@20', 'coverage@20')
LIKED, RECOMMENDED = 8, 10


def run_demo(out: Path, seed: int = 0) -> Run:
    """Train on MovieLens small into ``out``, and print figures beside baselines and two people's lists."""
    recipe: Recipe = load_recipe(RECIPE)
    print(f'Training TV-Diff on {RECIPE} (ratings of 4 and more are likes) into {out}\n', flush=True)
    run = fit(recipe, out, seed=seed, progress=sys.stdout.isatty())
    print(f'\n{describe_run(run.metrics)}\n')

    rows = [('TV-Diff', run.metrics['test'], run.metrics['wall_s']), *_baselines(run)]
    print('On the test part, best epoch and EASE\'s regularisation chosen on validation:')
    print(f"{'model':<12}" + ''.join(f'{column:>13}' for column in COLUMNS) + f"{'seconds':>10}")
    for name, metrics, seconds in rows:
        print(f'{name:<12}' + ''.join(f'{metrics[column]:>13.4f}' for column in COLUMNS) + f'{seconds:>10.1f}')
    winner = max(rows, key=lambda row: row[1]['recall@20'])[0]
    print(f'Best recall@20 here: {winner}. Seconds: training and choosing, on this machine.')

    for user in sample_people(run):
        _show_person(run, user)
    print(f'\nThe run: {out}   the plot: {out / "training.png"}\nNext:')
    people = ','.join(run.split.data.user_id[user] for user in sample_people(run))
    print(f'  tvdiff recommend {out} --users {people} -k 20')
    print(f'  tvdiff test {out}')
    print('  tvdiff fit --recipe movielens-small --model.hidden_channels 512   # any setting can be changed')
    print('  tvdiff fit --recipe interaction-file --dataset.path YOUR_RATINGS.csv')
    return run


def _baselines(run: Run) -> List[Tuple[str, Dict[str, float], float]]:
    train = run.split.train
    choose, measure = (run.split.evaluator(part, [20]) for part in ('validation', 'test'))
    started = time.perf_counter()
    fitted = {value: EASE(train, value).scorer() for value in EASE_REGULARIZATION}
    best = max(fitted, key=lambda value: choose(fitted[value]).mean['recall@20'])
    ease_s = time.perf_counter() - started
    started = time.perf_counter()
    popularity = Popularity(train).scorer()
    popularity_s = time.perf_counter() - started
    return [(f'EASE ({best:g})', measure(fitted[best]).mean, ease_s),
            ('popularity', measure(popularity).mean, popularity_s)]


def _show_person(run: Run, user: int) -> None:
    seen = person(run, user, LIKED, RECOMMENDED)
    print(f"\nPerson {seen['user']} liked {seen['number']} films in the training part, among them")
    for item in seen['liked']:
        print(f'      {describe_item(item)}')
    print('and is recommended (* : liked indeed, by the test part)')
    for rank, item in enumerate(seen['recommended'], 1):
        mark = '*' if item['held_out'] else ' '
        print(f'  {rank:2d} {mark} {describe_item(item)}')
