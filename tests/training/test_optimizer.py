"""Row-lazy Adam against Adam."""
import pytest
import torch

from tvdiff_pyg.training import RowLazyAdam


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
