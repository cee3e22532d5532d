"""A finished run: read from its folder, evaluated, and asked for lists."""
from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Union

import torch
from torch import Tensor

from tvdiff_pyg.datasets import file_sha256
from tvdiff_pyg.evaluation import DEFAULT_KS, Evaluation
from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn.models.base import InteractionModel
from tvdiff_pyg.retrieval import BLOCK_SIZE, check_k, fold_in, id_list, recommend, top_k
from tvdiff_pyg.split import Split
from tvdiff_pyg.thermodynamics import Thermodynamics, sample_users, thermodynamics
from tvdiff_pyg.training.building import build_model
from tvdiff_pyg.training.folder import HASHED, METRICS, WEIGHTS, RunError, read_history, read_settings
from tvdiff_pyg.training.module import SELECTION_K, SELECTION_METRIC
from tvdiff_pyg.training.recipe import Recipe
from tvdiff_pyg.training.storage import load_data_folder, load_weights
from tvdiff_pyg.typing import HistoryScorer, Scorer


@dataclass
class Run:
    """A finished run.

    Attributes:
        folder: where it lies.
        recipe: its settings.
        split: its interactions by purpose.
        model: the model with the weights of the best epoch.
        metrics: what ``metrics.json`` holds.
    """

    folder: Path
    recipe: Recipe
    split: Split
    model: InteractionModel
    metrics: Dict[str, Any]
    _index: Dict[str, Dict[str, int]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def load(cls, folder: Union[str, Path]) -> Run:
        """Read a finished run.

        Raises:
            RunError: the folder is not a run's, or its training has not finished.
            ValueError: the weights do not fit the settings.
        """
        folder = Path(folder)
        settings = read_settings(folder)
        if not (folder / METRICS).is_file():
            raise RunError(f"the run in {folder} has not finished: go on with 'tvdiff fit --resume --out {folder}'")
        try:
            metrics = json.loads((folder / METRICS).read_text(encoding='utf-8'))
            expected = {name: metrics['files'][name] for name in HASHED}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f'{folder / METRICS} cannot be read ({error}): train the run anew') from error
        for name, checksum in expected.items():
            if file_sha256(folder / name) != checksum:
                raise RunError(f'{folder / name} is not the file that this run wrote: restore it, or train anew')
        split = Split.of(load_data_folder(folder), settings.protocol)
        with torch.random.fork_rng(devices=[]):  # the first weights, which are not kept
            model = build_model(settings.recipe, split.train, settings.seed)
        load_weights(model, folder / WEIGHTS)
        return cls(folder, settings.recipe, split, model.eval(), metrics)

    def evaluate(self, part: str = 'test', ks: Optional[Sequence[int]] = None) -> Evaluation:
        """Evaluate the model on the ``test`` or ``validation`` part.

        Raises:
            ValueError: the run has no such part, or a K above the number of items.
        """
        return self.split.evaluator(part, ks or report_ks(self.recipe, self.split))(self.model.scorer())

    def recommend(self, users: Sequence[str], k: int = 10, allow: Optional[Sequence[str]] = None,
                  deny: Sequence[str] = (), scorer: Optional[Scorer] = None,
                  block_size: int = BLOCK_SIZE, held_out: bool = False) -> List[Dict[str, Any]]:
        """Return the ``k`` best unseen items of users named by their original ids.

        What a user has in any part of the data is seen: training, validation and test.

        Args:
            users: original ids, none twice.
            k: length of the lists.
            allow: original ids of the only items that may be listed; all by default.
            deny: original ids of items that may not; those that the run does not have are never listed anyway.
            scorer: ``model.scorer()``, where many calls share one.
            block_size: users to score at a time; see :func:`tvdiff_pyg.retrieval.top_k`.
            held_out: list items of the test part too, as the test itself does, to look at its hits.

        Returns:
            A dict a user: ``user``, and ``items``, a list of dicts of ``item`` (original id), ``score`` and what is
            known of the item (title, year, genres). Shorter than ``k`` where a user has fewer unseen items.

        Raises:
            ValueError: an unknown or repeated user, an unknown item in ``allow``, ids that are no list of text, or
                ``k`` out of range.
        """
        check_k(k, self.model.num_items)
        users = id_list('users', users)
        index = self._positions('user', users)
        if len(set(index)) < len(index):
            twice = next(user for position, user in enumerate(users) if user in users[:position])
            raise ValueError(f"user '{twice}' is named twice")
        best = recommend(self.model, torch.tensor(index, dtype=torch.long), k, self._seen(held_out),
                         self._allowed(allow, deny), scorer, block_size)
        return [{'user': user, 'items': self._listed(*lists)} for user, *lists in zip(users, *best)]

    def recommend_all(self, k: int = 10, allow: Optional[Sequence[str]] = None,
                      deny: Sequence[str] = (), held_out: bool = False) -> Iterator[Dict[str, Any]]:
        """Yield the same for every user, in the order of the training part; memory does not grow with their number.

        Raises:
            ValueError: as :meth:`recommend`.
        """
        check_k(k, self.model.num_items)
        allowed, scorer, names = self._allowed(allow, deny), self.model.scorer(), self.split.data.user_id
        seen = self._seen(held_out)
        for block in torch.arange(self.split.train.num_users).split(BLOCK_SIZE):
            best = top_k(scorer, block, k, seen, allowed)
            for user, *lists in zip(block.tolist(), *best):
                yield {'user': names[user], 'items': self._listed(*lists)}

    def recommend_history(self, histories: Sequence[Sequence[str]], k: int = 10,
                          allow: Optional[Sequence[str]] = None, deny: Sequence[str] = (),
                          scorer: Optional[HistoryScorer] = None, block_size: int = BLOCK_SIZE) -> List[Dict[str, Any]]:
        """Return the ``k`` best further items of people who need not have been trained on (fold-in).

        Args:
            histories: for each person the original ids of what they have seen, in any order; repeated ids count once.
            k: length of the lists.
            allow, deny: as in :meth:`recommend`.
            scorer: ``model.history_scorer()``, where many calls share one.
            block_size: people to score at a time; see :func:`tvdiff_pyg.retrieval.top_k`.

        Returns:
            A dict a person, with ``items`` as in :meth:`recommend`.

        Raises:
            ValueError: a person without items, an unknown item in a history or ``allow``, ids that are no lists of
                text, ``k`` out of range, or a model that knows only the users that it was trained on.
        """
        if not all(histories):
            raise ValueError("'histories' holds a person without items: name at least one")
        index = [self._positions('item', id_list(f'histories[{row}]', history))
                 for row, history in enumerate(histories)]
        count = torch.tensor([len(items) for items in index], dtype=torch.long)
        row = torch.arange(len(index)).repeat_interleave(count)
        item = torch.tensor([position for items in index for position in items], dtype=torch.long)
        seen = InteractionMatrix(torch.stack([row, item]), len(index), self.model.num_items)
        best = fold_in(self.model, seen, k, self._allowed(allow, deny), scorer, block_size)
        return [{'items': self._listed(*lists)} for lists in zip(*best)]

    def _seen(self, held_out: bool) -> List[InteractionMatrix]:
        return self.split.seen_when_testing if held_out else self.split.known

    def _listed(self, items: Tensor, scores: Tensor) -> List[Dict[str, Any]]:
        return [{**self.item(item), 'score': score} for item, score in zip(items.tolist(), scores.tolist())
                if score != float('-inf')]

    def index(self, what: str) -> Dict[str, int]:
        """Return the index of each ``user`` or ``item`` by its original id."""
        if what not in self._index:
            self._index[what] = {name: number for number, name in enumerate(self.split.data[f'{what}_id'])}
        return self._index[what]

    def _positions(self, what: str, names: Sequence[str]) -> List[int]:
        """Return the indices of users or items named by their original ids."""
        known = self.index(what)
        for name in names:
            if name not in known:
                raise ValueError(f"{what} '{name}' does not occur in the training part of '{self.split.data.name}'")
        return [known[name] for name in names]

    def _allowed(self, allow: Optional[Sequence[str]], deny: Sequence[str]) -> Optional[Tensor]:
        if allow is None and not deny:
            return None
        allowed = torch.full((self.model.num_items,), allow is None)
        allowed[self._positions('item', id_list('allow', allow or ()))] = True
        known = self.index('item')
        allowed[[known[name] for name in id_list('deny', deny) if name in known]] = False
        return allowed

    def thermodynamics(self, num_users: Optional[int] = None, published: bool = False, seed: int = 0) -> Thermodynamics:
        """Return energy and entropy of what the model makes of the training part.

        Args:
            num_users: look at a random sample of so many users; all by default.
            published: by the definitions of the paper's plots.
            seed: of the sample.
        """
        users = None if num_users is None else sample_users(
            self.split.train, num_users, torch.Generator().manual_seed(seed))
        return thermodynamics(self.model.scorer(), self.split.train, self.model.distribution, published, users)

    def history(self) -> List[Dict[str, float]]:
        """Return the training history, a row an epoch; empty where the model was solved in closed form."""
        return read_history(self.folder)

    def item(self, index: int) -> Dict[str, Any]:
        """Return an item's original id and what else is known of it."""
        data = self.split.data
        return {'item': data.item_id[index], **{name: value[index] for name, value in data.item_attributes.items()}}


def report_ks(recipe: Recipe, split: Split) -> List[int]:
    """Return the list lengths of a run's reports: the recipe's that fit the catalogue, and 20 to select on.

    Raises:
        ValueError: there are fewer than 20 items, so that the selection metric makes no sense.
    """
    num_items = split.train.num_items
    if num_items < SELECTION_K:
        raise ValueError(f"'{split.data.name}' has {num_items} items; the best epoch is selected by "
                         f"{SELECTION_METRIC}, which needs at least {SELECTION_K}")
    ks = recipe.training.ks
    if ks is None:
        ks = [k for k in DEFAULT_KS if k <= num_items]
    elif max(ks, default=0) > num_items:
        raise ValueError(f"'training.ks' holds {max(ks)}, but '{split.data.name}' has {num_items} items")
    return sorted({SELECTION_K, *ks})
