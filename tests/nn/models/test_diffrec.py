import pytest
import torch

from tvdiff_pyg.diffusion import GaussianDiffusion, LossHistoryTimesteps, NoiseSchedule, UniformTimesteps
from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn import DiffRec
from tvdiff_pyg.retrieval import recommend
from tvdiff_pyg.testing import check_model, planted_blocks
from tvdiff_pyg.typing import Batch

# user 2 saw nothing, user 3 everything
MATRIX = InteractionMatrix(torch.tensor([[0, 0, 1, 3, 3, 3, 3, 3], [0, 2, 1, 0, 1, 2, 3, 4]]), 4, 5)
USERS = torch.tensor([3, 0, 2, 1, 0])


def build(interactions=MATRIX, widths=3, scale=0.5, engine='factored', **options):
    torch.manual_seed(0)
    diffusion = GaussianDiffusion(NoiseSchedule('linear-var', 4, scale, 0.1, 0.5))
    return DiffRec(interactions, diffusion, widths, 6, **{'dropout': 0.0, 'engine': engine, **options})


@pytest.mark.parametrize('engine', ['factored', 'dense'])
@pytest.mark.parametrize('reweight', [True, False])
def test_contract(engine, reweight):
    check_model(lambda interactions: build(interactions, engine=engine, reweight=reweight), personalized=False)


@pytest.mark.parametrize('widths', [3, [3, 6, 4]], ids=str)
def test_the_fast_path_ranks_like_the_dense_one(widths):
    """SPEC 7h: the latent reverse process holds for the perceptron, biases and all."""
    fast, dense = build(widths=widths), build(widths=widths, engine='dense')
    dense.load_state_dict(fast.state_dict())
    with torch.no_grad():  # biases that matter
        for model in (fast, dense):
            model.denoiser.item_bias.copy_(torch.arange(5.0).view(5, 1))
            model.denoiser.user_bias.fill_(0.3)
    torch.testing.assert_close(fast.scorer()(USERS), dense.scorer()(USERS))


@pytest.mark.parametrize('reweight', [True, False])
@pytest.mark.parametrize('reduction', ['mean', 'sum'])
def test_loss_and_gradients_by_hand(reweight, reduction, monkeypatch):
    """Without noise drawn, both engines are the weighted squared error of the perceptron's output."""
    t = torch.tensor([0, 3, 1, 2, 1])
    monkeypatch.setattr(UniformTimesteps, 'forward', lambda self, size, device=None, generator=None: (t, 1.0 + t))
    results = []
    for engine in ('factored', 'dense', 'by hand'):
        model = build(engine='dense' if engine == 'by hand' else engine, reweight=reweight, reduction=reduction,
                      timesteps=UniformTimesteps(4)).train()
        schedule = model.diffusion.schedule
        schedule.sqrt_one_minus_alpha_bar.zero_()
        if engine == 'by hand':
            x = MATRIX.dense(USERS)
            output = model.denoiser(schedule.sqrt_alpha_bar[t].unsqueeze(1) * x, t, model.denoiser.items())
            error = (x - output).square().mean(1) * (schedule.snr_weight[t] if reweight else 1)
            loss = (error * (1.0 + t)).mean() * (5 if reduction == 'sum' else 1)
        else:
            loss = model.training_loss(Batch(USERS)).loss
        results.append((loss, torch.autograd.grad(loss, list(model.denoiser.parameters()), allow_unused=True)))
    for got in results[:2]:
        torch.testing.assert_close(got, results[2])


def test_steps_are_drawn_by_the_weighted_loss():
    model = build()
    assert isinstance(model.timesteps, LossHistoryTimesteps)
    told = []
    model.timesteps.update = lambda t, loss: told.append((t, loss))
    model.training_loss(Batch(torch.arange(4).repeat(50)), torch.Generator().manual_seed(0))
    (t, loss), = told
    mean = torch.stack([loss[t == step].mean() for step in range(4)])
    plain = mean / model.diffusion.schedule.snr_weight
    assert (plain < 3).all() and (plain > 0.05).all()  # errors of one size, weights of several


def test_finds_what_was_held_out_of_planted_blocks():
    planted = planted_blocks()
    interactions = InteractionMatrix(planted.edge_index, planted.num_users, planted.num_items)
    model = build(interactions, 16, 1e-3, dropout=0.5)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    generator, users = torch.Generator().manual_seed(0), torch.arange(interactions.num_users)
    for _ in range(150):
        optimizer.zero_grad()
        model.training_loss(Batch(users), generator).loss.backward()
        optimizer.step()
    assert torch.equal(recommend(model, users, 1, [interactions]).items, planted.held_out)


def test_only_x0():
    with pytest.raises(ValueError, match="'diffusion' must predict x0"):
        DiffRec(MATRIX, GaussianDiffusion(NoiseSchedule(), 'eps'))
