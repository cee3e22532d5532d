import pytest
import torch
import torch_geometric.nn
from torch_geometric.utils import to_undirected

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn import LightGCN
from tvdiff_pyg.retrieval import recommend
from tvdiff_pyg.sampling import ARGumbelSampler, NegativeSampler
from tvdiff_pyg.testing import check_model, planted_blocks
from tvdiff_pyg.typing import Batch

# user 2 saw nothing, user 3 everything; item 4 is user 3's alone
EDGES = torch.tensor([[0, 0, 1, 3, 3, 3, 3, 3], [0, 2, 1, 0, 1, 2, 3, 4]])
MATRIX = InteractionMatrix(EDGES, 4, 5)
PAIRS = Batch(torch.tensor([0, 1, 0, 1]), torch.tensor([2, 1, 0, 1]))


class Fixed(NegativeSampler):
    def forward(self, interactions, users, num_negatives, scores=None, t=None, num_steps=1, generator=None):
        return torch.arange(users.numel()), torch.tensor([1, 3, 4, 0])


@pytest.mark.parametrize('num_layers', [0, 2])
def test_contract(num_layers):
    check_model(lambda interactions: LightGCN(interactions, 4, num_layers), pairwise=True)
    check_model(lambda interactions: LightGCN(interactions, 4, num_layers, sampler=ARGumbelSampler(0.5)), pairwise=True)


@pytest.mark.parametrize('num_layers', [0, 1, 3])
def test_against_pygs_own(num_layers):
    """Embeddings, and the loss with each batch row's own regularisation, and its gradient."""
    torch.manual_seed(0)
    model = LightGCN(MATRIX, 3, num_layers, regularization=0.4, sampler=Fixed())
    peer = torch_geometric.nn.LightGCN(9, 3, num_layers)
    peer.load_state_dict(model.network.state_dict())
    edge_index = to_undirected(EDGES + torch.tensor([[0], [4]]), num_nodes=9)
    torch.testing.assert_close(model.embeddings(), peer.get_embedding(edge_index))

    u, i, j = PAIRS.users, PAIRS.items + 4, torch.tensor([1, 3, 4, 0]) + 4
    score = peer(edge_index, torch.stack([torch.cat([u, u]), torch.cat([i, j])]))
    loss = peer.recommendation_loss(score[:4], score[4:], torch.cat([u, i, j]), lambda_reg=0.2)
    terms = model.training_loss(PAIRS)
    torch.testing.assert_close(terms.loss, loss)
    torch.testing.assert_close(terms.energy - terms.entropy, loss)
    torch.testing.assert_close(torch.autograd.grad(terms.loss, model.network.embedding.weight),
                               torch.autograd.grad(loss, peer.embedding.weight))
    z_user, z_item = peer.get_embedding(edge_index).split([4, 5])
    torch.testing.assert_close(model.scorer()(torch.tensor([2, 0])), (z_user @ z_item.t())[[2, 0]])


def test_no_layers_is_matrix_factorisation():
    model = LightGCN(MATRIX, 3, 0)
    p, q = model.network.embedding.weight.split([4, 5])
    torch.testing.assert_close(model.scorer()(torch.arange(4)), (p @ q.t()).detach())


def test_the_sampler_gets_the_present_scores():
    class Asks(Fixed):
        def forward(self, interactions, users, num_negatives, scores=None, t=None, num_steps=1, generator=None):
            self.seen = scores(torch.tensor([1, 2]), None), scores(torch.tensor([3]), torch.tensor([4, 0]))
            return super().forward(interactions, users, num_negatives)

    model = LightGCN(MATRIX, 3, 2, sampler=Asks())
    model.training_loss(PAIRS)
    scores = model.scorer()(PAIRS.users)
    torch.testing.assert_close(model.sampler.seen, (scores[[1, 2]], scores[3:4][:, [4, 0]]))


def test_who_saw_everything_has_no_pair():
    batch = Batch(torch.tensor([3, 0]), torch.tensor([1, 0]))
    alone = Batch(torch.tensor([0]), torch.tensor([0]))
    model = LightGCN(MATRIX, 3, 1, 0.0, sampler=ARGumbelSampler(1e-9, 'flat'))  # one hardest negative: no chance
    both, one = (float(model.training_loss(part, torch.Generator().manual_seed(0)).entropy) for part in (batch, alone))
    assert both == pytest.approx(one / 2)


def test_finds_what_was_held_out_of_planted_blocks():
    planted = planted_blocks()
    interactions = InteractionMatrix(planted.edge_index, planted.num_users, planted.num_items)
    torch.manual_seed(0)
    model = LightGCN(interactions, 16, 2, 1e-3)
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    generator, pairs = torch.Generator().manual_seed(0), Batch(*interactions.edge_index)
    for _ in range(100):
        optimizer.zero_grad()
        model.training_loss(pairs, generator).loss.backward()
        optimizer.step()
    users = torch.arange(interactions.num_users)
    assert torch.equal(recommend(model, users, 1, [interactions]).items, planted.held_out)


@pytest.mark.parametrize('options, message', [
    ({'hidden_channels': 0}, "'hidden_channels' must be at least 1, got 0"),
    ({'num_layers': -1}, "'num_layers' must be at least 0, got -1"),
    ({'regularization': float('nan')}, "'regularization' must be a finite number >= 0, got nan"),
])
def test_numbers_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        LightGCN(MATRIX, **options)


def test_a_batch_of_users_is_refused():
    with pytest.raises(ValueError, match="'batch' must hold pairs"):
        LightGCN(MATRIX, 3).training_loss(Batch(torch.arange(2)))
