"""Row-lazy Adam against Adam."""
import pytest
import torch

from tvdiff_pyg.training import RowLazyAdam
from tvdiff_pyg.training.optimizer import WeightAverage


def run(optimizer, sparse, touched, steps=4):
    generator = torch.Generator().manual_seed(0)
    table, bias = (torch.nn.Parameter(torch.randn(*shape, generator=generator)) for shape in ((5, 3), (3,)))
    optimizer = optimizer([table, bias], lr=0.1)
    for step in range(steps):
        optimizer.zero_grad()
        index = torch.tensor(touched[step % len(touched)])
        rows = torch.nn.functional.embedding(index, table, sparse=sparse)
        loss = ((rows + bias).sin() * (step + 1)).sum()

        def closure():
            loss.backward()
            return loss

        assert optimizer.step(closure) is loss
    return table.detach(), bias.detach()


def test_it_is_adam_where_every_row_is_touched():
    torch.testing.assert_close(run(RowLazyAdam, True, [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0, 0]]),
                               run(torch.optim.Adam, False, [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0, 0]]))


def test_untouched_rows_stay_as_they_are():
    start = run(RowLazyAdam, True, [[0]], steps=0)[0]
    lazy = run(RowLazyAdam, True, [[0, 1], [2]], steps=3)[0]
    assert torch.equal(lazy[3:], start[3:]) and not (lazy[:3] == start[:3]).any()
    first = run(RowLazyAdam, True, [[0, 1], [2]], steps=1)[0]
    assert torch.equal(run(RowLazyAdam, True, [[0, 1], [2]], steps=2)[0][:2], first[:2])  # Adam would move them on


@pytest.mark.parametrize('closure', [True, False])
def test_without_a_closure(closure):
    table = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = RowLazyAdam([table, torch.nn.Parameter(torch.ones(1))], lr=0.5)
    table.grad = torch.ones(2, 2)
    assert optimizer.step((lambda: 3) if closure else None) == (3 if closure else None)
    torch.testing.assert_close(table.detach(), torch.full((2, 2), 0.5))


def test_a_weight_average_follows_its_recursion():
    model = torch.nn.Linear(2, 1)
    average = WeightAverage(model, 0.6)
    expected = [value.detach().clone() for value in model.parameters()]
    for step in range(1, 20):
        with torch.no_grad():
            for value in model.parameters():
                value += step
        average.update(model)
        decay = min(0.6, step / (step + 9))
        expected = [decay * old + (1 - decay) * new.detach() for old, new in zip(expected, model.parameters())]
    torch.testing.assert_close(average.values, expected)
    own = [value.detach().clone() for value in model.parameters()]
    with pytest.raises(RuntimeError, match='stop'), average.in_place_of(model):
        torch.testing.assert_close(list(model.parameters()), expected)
        raise RuntimeError('stop')
    assert all(torch.equal(value, before) for value, before in zip(model.parameters(), own))
    other = WeightAverage(torch.nn.Linear(2, 1), 0.6)
    other.load_state_dict(average.state_dict())
    assert other.steps == 19
    other.copy_to(model)
    torch.testing.assert_close(list(model.parameters()), expected)
