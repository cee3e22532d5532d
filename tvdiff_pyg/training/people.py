"""A few people of a run: what they like, and what they are recommended."""
from __future__ import annotations

from typing import Any, Dict, List

from tvdiff_pyg.training.run import Run


def sample_people(run: Run) -> List[int]:
    """Return two users of middling activity: a quarter from the top, and the median."""
    order = run.split.train.user_degree.argsort(descending=True, stable=True).tolist()
    return list(dict.fromkeys([order[len(order) // 4], order[len(order) // 2]]))


def person(run: Run, user: int, liked: int = 8, recommended: int = 10) -> Dict[str, Any]:
    """Return what a user likes and what the model recommends.

    Args:
        run: a finished run.
        user: index of the user.
        liked: at most so many items of the training part, those with the fewest users first, as they say most.
        recommended: length of the list, at most the catalogue.

    Returns:
        ``user``, the original id; ``number`` of items of the training part; ``liked``, dicts of ``item`` and what is
        known of it; ``recommended``, dicts with ``score`` and ``held_out``, whether the test part has it, besides.
    """
    train, test = run.split.train, run.split.test
    degree = train.item_degree
    items = sorted(train.col[train.rowptr[user]:train.rowptr[user + 1]].tolist(),
                   key=lambda item: (int(degree[item]), item))
    held_out = {run.split.data.item_id[item]
                for item in test.col[test.rowptr[user]:test.rowptr[user + 1]].tolist()}
    name = run.split.data.user_id[user]
    answer = run.recommend([name], min(recommended, train.num_items), held_out=True)[0]
    return {'user': name, 'number': len(items), 'liked': [run.item(item) for item in items[:liked]],
            'recommended': [{**item, 'held_out': item['item'] in held_out} for item in answer['items']]}
