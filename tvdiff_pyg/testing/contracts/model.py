"""The contract of a recommender, and of its training."""
from __future__ import annotations

import copy
from typing import Any, Callable, Iterator, List

import torch
from torch import Tensor

from tvdiff_pyg.evaluation import evaluate
from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.retrieval import recommend
from tvdiff_pyg.testing.contracts.common import (
    EXACT,
    check_state_dict,
    close,
    corner_cases,
    generator,
    global_generator_rests,
    gradients,
    has_shape,
    is_finite,
    laboratory,
    reach,
    rule,
    untouched,
)
from tvdiff_pyg.testing.planted import planted_blocks
from tvdiff_pyg.typing import Batch, Recommender


@laboratory()
def check_model(make: Callable[[InteractionMatrix], Any], pairwise: bool = False, personalized: bool = True,
                num_steps: int = 200, lr: float = 1e-2) -> None:
    """Check a :class:`~tvdiff_pyg.typing.Recommender`, and its training where it has a ``training_loss``.

    That a user out of range raises is no rule: :func:`~tvdiff_pyg.retrieval.recommend` checks for all models.

    Args:
        make: ``make(interactions)`` returns the model, fitted unless it has a ``training_loss``; its weights are drawn
            by torch's global generator.
        pairwise: whether it trains on pairs of a user and an item instead of users.
        personalized: whether it can find out what a user's neighbours like: if so, it must rank the held-out items of
            :func:`~tvdiff_pyg.testing.planted_blocks` first.
        num_steps: number of steps of Adam, on all users or 64 pairs, after which it must.
        lr: their learning rate.

    Raises:
        AssertionError: a rule is broken.
    """
    interactions = corner_cases()
    model = make(interactions)
    modules = list(model.modules()) if isinstance(model, torch.nn.Module) else []
    trains = hasattr(model, 'training_loss')
    with rule('num_users and num_items are those of the interactions'):
        sizes = model.num_users, model.num_items
        assert sizes == (interactions.num_users, interactions.num_items), f'{sizes} for {interactions}'
    if trains:
        _check_training_loss(model, _batches(interactions, pairwise))
    with rule('scoring changes neither users nor interactions nor weights'):
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())} if modules else {}
        users = torch.arange(interactions.num_users)
        with untouched(users=users, **dict(interactions.named_buffers()), **tensors):
            model.scorer()(users)
    _check_scorer(model, modules, interactions)
    if trains:
        with rule('scorer() follows the weights'):
            _train(model, interactions, pairwise, 1, lr)
            twin = make(interactions)
            twin.load_state_dict(model.state_dict())
            close(_scores(model), _scores(twin), EXACT)
    if modules:
        check_state_dict(lambda: make(interactions), _scores)
        with rule('a deep copy gives the same scores'):
            close(_scores(copy.deepcopy(model)), _scores(model), EXACT)
    if personalized:
        _check_planted(make, pairwise, num_steps if trains else 0, lr)


def _scores(model: Recommender) -> Tensor:
    return model.scorer()(torch.arange(model.num_users))


def _batches(interactions: InteractionMatrix, pairwise: bool, size: int = 64) -> Iterator[Batch]:
    """Yield batches of all users, in a random order, or of random pairs, for ever."""
    users, items = interactions.edge_index
    draw = generator()
    while True:
        if pairwise:
            index = torch.randint(users.numel(), (size,), generator=draw)
            yield Batch(users[index], items[index])
        else:
            yield Batch(torch.randperm(interactions.num_users, generator=draw))


def _train(model: Any, interactions: InteractionMatrix, pairwise: bool, num_steps: int, lr: float) -> None:
    optimizer, draw = torch.optim.Adam(model.parameters(), lr), generator()
    for _, batch in zip(range(num_steps), _batches(interactions, pairwise)):
        optimizer.zero_grad()
        model.training_loss(batch, draw).loss.backward()
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad = parameter.grad.to_dense()  # Adam takes no sparse gradients
        optimizer.step()


def _check_training_loss(model: Any, batches: Iterator[Batch]) -> None:
    batch = next(batches)
    with rule('training_loss returns finite scalars, of which the loss alone holds a graph'):
        terms = copy.deepcopy(model).training_loss(batch, generator())
        for name, value in terms._asdict().items():
            assert value.dim() == 0, f"'{name}' has shape {list(value.shape)}"
            is_finite(value, f"'{name}'")
            assert value.requires_grad == (name == 'loss'), f"'{name}' has requires_grad {value.requires_grad}"
    with rule('gradients reach every weight'):
        twin = copy.deepcopy(model)
        reach(list(twin.named_parameters()), twin.training_loss(batch, generator()).loss)
    with rule('the same generator seed gives the same loss and gradients'):
        runs = []
        for twin in (copy.deepcopy(model), copy.deepcopy(model)):
            loss = twin.training_loss(batch, generator()).loss
            runs.append([loss.detach(), *gradients(loss, list(twin.parameters()))])
        close(runs[0], runs[1], EXACT)
    with rule('all randomness comes from the generator'), global_generator_rests():
        copy.deepcopy(model).training_loss(batch, generator())
    fresh = next(batches)
    with rule('the batch stays as it was'), untouched(
            **{name: value for name, value in fresh._asdict().items() if value is not None}):
        model.training_loss(fresh, generator())


def _check_scorer(model: Any, modules: List[torch.nn.Module], interactions: InteractionMatrix) -> None:
    users, num_items = torch.arange(interactions.num_users), interactions.num_items
    with rule('scorer() and its scores leave every module in the mode it was in'):
        size = len(modules)
        for training in (set(), {0}, set(range(0, size, 2)), set(range(size))):  # none, the first, every other, all
            modes = [k in training for k in range(size)]
            for part, mode in zip(modules, modes):
                part.training = mode
            score = model.scorer()
            assert [part.training for part in modules] == modes, f'scorer() changed {modes}'
            score(users)
            assert [part.training for part in modules] == modes, f'scoring changed {modes}'
    with rule('scores are finite floating-point numbers [B, N]'):
        scores = model.scorer()(users)
        has_shape(scores, users.numel(), num_items)
        assert scores.is_floating_point(), f'they are {scores.dtype}'
        is_finite(scores)
    with rule('scores hold no graph'):
        assert not scores.requires_grad, 'they require a gradient'
    with rule('the same call gives the same scores and draws no random numbers'), global_generator_rests():
        score = model.scorer()
        for again in (score(users), score(users)):
            close(again, scores, EXACT)
    with rule('scores are those of evaluation mode'):
        for part in modules:
            part.training = False
        close(_scores(model), scores, EXACT)
    with rule("a user's scores do not depend on the rest of the batch"):
        for batch in (*users.split(1), users.flip(0), users[:2], users[[0, 0, 1]]):
            close(score(batch), scores[batch])
    with rule('a batch may be empty'):
        has_shape(score(users[:0]), 0, num_items)
    with rule('writing into scores changes no later ones'):
        score(users).fill_(-torch.inf)
        score(users)[0] = torch.inf
        close(score(users), scores, EXACT)
        one = score(users)
        one[0] = torch.inf
        close(one[1:], scores[1:], EXACT)
    with rule('recommend lists every unseen item and no seen one'):
        many = users.repeat(30)  # more than a block
        best = recommend(model, many, num_items, [interactions])
        listed = best.scores > -torch.inf
        seen = interactions.contains(many.unsqueeze(1), best.items) & listed
        assert not bool(seen.any()), f'user {int(many[seen.any(1)][0])} got item {int(best.items[seen][0])}'
        number, right = listed.sum(1), num_items - interactions.user_degree[many]
        assert torch.equal(number, right), f'{number[:users.numel()].tolist()} instead of {right.tolist()}'


def _check_planted(make: Callable[[InteractionMatrix], Any], pairwise: bool, num_steps: int, lr: float) -> None:
    data = planted_blocks(generator=generator())
    interactions = InteractionMatrix(*data[:3])
    model = make(interactions)
    with rule('a model that has trained ranks the held-out items of planted blocks first'):
        if num_steps:
            _train(model, interactions, pairwise, num_steps, lr)
        user = torch.arange(data.num_users).repeat_interleave(data.held_out.size(1))
        held_out = InteractionMatrix(torch.stack([user, data.held_out.view(-1)]), *data[1:3])
        recall = evaluate(model, held_out, [interactions], [data.held_out.size(1)]).per_user
        found = next(iter(recall.values()))
        assert bool((found == 1).all()), f'for {int((found == 1).sum())} of {found.numel()} users'
