import pytest
import torch

from tvdiff_pyg.interaction_matrix import InteractionMatrix

# unsorted, (2, 1) and (0, 3) repeated; user 1, user 4 and item 2 without interactions
EDGE_INDEX = torch.tensor([[2, 0, 3, 2, 0, 2, 0, 3], [1, 3, 0, 0, 0, 1, 3, 4]])
DENSE = torch.tensor([[1, 0, 0, 1, 0],
                      [0, 0, 0, 0, 0],
                      [1, 1, 0, 0, 0],
                      [1, 0, 0, 0, 1],
                      [0, 0, 0, 0, 0]])
PAIRS = [(0, 0), (0, 3), (2, 0), (2, 1), (3, 0), (3, 4)]


@pytest.fixture
def matrix():
    return InteractionMatrix(EDGE_INDEX, 5, 5)


def test_edges_are_sorted_and_unique(matrix):
    assert matrix.num_interactions == 6
    assert matrix.edge_index.t().tolist() == [list(pair) for pair in PAIRS]
    assert matrix.user_degree.tolist() == [2, 0, 2, 2, 0]
    assert matrix.item_degree.tolist() == [3, 1, 0, 1, 1]
    assert repr(matrix) == 'InteractionMatrix(5 users x 5 items, 6 interactions)'


@pytest.mark.parametrize('users', [[0, 1, 2, 3, 4], [3, 3, 0], [1], [4, 2, 1, 2], []])
def test_rows_and_dense(matrix, users):
    index = torch.tensor(users, dtype=torch.long)
    row, item = matrix.rows(index)
    expected = [(r, j) for r, user in enumerate(users) for u, j in PAIRS if u == user]
    assert list(zip(row.tolist(), item.tolist())) == expected
    assert torch.equal(matrix.dense(index), DENSE[index].float())
    assert torch.equal(matrix.dense(index, torch.float64), DENSE[index].double())


def test_contains(matrix):
    user, item = torch.arange(5).view(-1, 1), torch.arange(5)
    assert torch.equal(matrix.contains(user, item), DENSE.bool())  # broadcasts
    assert matrix.contains(torch.tensor([3, 3, 4]), torch.tensor([4, 3, 4])).tolist() == [True, False, False]


def test_node_edge_index_is_symmetric_over_users_then_items(matrix):
    both = torch.zeros(10, 10)
    both[tuple(matrix.node_edge_index)] += 1
    assert torch.equal(both[:5, 5:], DENSE.float()) and torch.equal(both, both.t()) and both.sum() == 12


def test_adj_t(matrix):
    adj_t = matrix.adj_t()
    assert adj_t.layout == torch.sparse_csr
    assert torch.equal(adj_t.to_dense(), DENSE.t().float())


def test_random_rectangle_against_brute_force():
    generator = torch.Generator().manual_seed(0)
    edge_index = torch.stack([torch.randint(30, (300,), generator=generator),
                              torch.randint(17, (300,), generator=generator)])
    dense = torch.zeros(30, 17)
    for user, item in edge_index.t().tolist():
        dense[user, item] = 1
    matrix = InteractionMatrix(edge_index, 30, 17)
    users = torch.randint(30, (50,), generator=generator)
    assert torch.equal(matrix.dense(users), dense[users])
    assert torch.equal(matrix.adj_t().to_dense(), dense.t())
    assert torch.equal(matrix.contains(torch.arange(30).view(-1, 1), torch.arange(17)), dense.bool())
    assert torch.equal(matrix.user_degree, dense.sum(1).long())
    assert torch.equal(matrix.item_degree, dense.sum(0).long())
    assert torch.equal(matrix.edge_index, dense.nonzero().t())


def test_no_interactions():
    matrix = InteractionMatrix(torch.empty(2, 0, dtype=torch.long), 3, 2)
    assert matrix.num_interactions == 0
    assert matrix.user_degree.tolist() == [0, 0, 0] and matrix.item_degree.tolist() == [0, 0]
    assert torch.equal(matrix.dense(torch.arange(3)), torch.zeros(3, 2))
    assert torch.equal(matrix.adj_t().to_dense(), torch.zeros(2, 3))
    assert matrix.rows(torch.arange(3))[0].numel() == 0
    assert matrix.contains(torch.arange(3), torch.tensor(1)).tolist() == [False] * 3


def test_narrow_integers_do_not_overflow():
    edge_index = torch.tensor([[99_999, 3], [99_998, 5]], dtype=torch.int32)
    matrix = InteractionMatrix(edge_index, 100_000, 100_000)
    assert matrix.edge_index.tolist() == [[3, 99_999], [5, 99_998]]


def test_input_and_state_dict_stay_untouched(matrix):
    before = EDGE_INDEX.clone()
    InteractionMatrix(EDGE_INDEX, 5, 5)
    assert torch.equal(EDGE_INDEX, before)
    assert matrix.state_dict() == {} and list(matrix.parameters()) == []


@pytest.mark.parametrize('edge_index, message', [
    (torch.zeros(3, 4, dtype=torch.long), r'shape \[2, num_edges\], got \[3, 4\]'),
    (torch.zeros(4, dtype=torch.long), r'shape \[2, num_edges\]'),
    (torch.tensor([[5], [0]]), 'user indices from 5 to 5.*num_users=5'),
    (torch.tensor([[0], [-1]]), 'item indices from -1 to -1.*num_items=4'),
    (torch.tensor([[0, 1], [0, 4]]), 'item indices from 0 to 4.*num_items=4'),
    (torch.zeros(2, 1), 'must hold integers, got torch.float32'),
])
def test_errors(edge_index, message):
    with pytest.raises(ValueError, match=message):
        InteractionMatrix(edge_index, 5, 4)
