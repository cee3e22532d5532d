import pytest
import torch

from tvdiff_pyg.sampling import NegativeSampler, UniformSampler, WarmUpSampler


class LastUnobserved(NegativeSampler):
    """Always a user's last unobserved items: nothing like uniform."""

    def forward(self, interactions, users, num_negatives, scores=None, t=None, num_steps=1, generator=None):
        free = (interactions.dense(users) == 0).double() * torch.arange(1, interactions.num_items + 1)
        order = free.argsort(dim=1, descending=True)
        wanted = torch.minimum(num_negatives, interactions.num_items - interactions.user_degree[users])
        row = torch.arange(users.numel()).repeat_interleave(wanted)
        return row, torch.cat([order[b, :n] for b, n in enumerate(wanted.tolist())])


def draw(sampler, interactions):
    users = torch.arange(interactions.num_users)
    return sampler(interactions, users, torch.full_like(users, 2), generator=torch.Generator().manual_seed(0))


def test_it_is_uniform_before_and_the_other_from_then_on(interactions):
    sampler = WarmUpSampler(LastUnobserved(), 2)
    for epoch, expected in enumerate([UniformSampler(), UniformSampler(), LastUnobserved(), LastUnobserved()]):
        sampler.set_epoch(epoch)
        for got, want in zip(draw(sampler, interactions), draw(expected, interactions)):
            assert torch.equal(got, want)


def test_it_counts_from_epoch_0(interactions):
    got = draw(WarmUpSampler(LastUnobserved(), 1), interactions)
    assert torch.equal(got[1], draw(UniformSampler(), interactions)[1])
    assert torch.equal(draw(WarmUpSampler(LastUnobserved(), 0), interactions)[1],
                       draw(LastUnobserved(), interactions)[1])


def test_it_hands_everything_on(interactions):
    class Recorder(NegativeSampler):
        def forward(self, *arguments):
            self.got = arguments
            return torch.empty(2, 0)

    recorder, given = Recorder(), (interactions, *(object() for _ in range(6)))
    WarmUpSampler(recorder, 0)(*given)
    assert recorder.got == given


def test_a_negative_number_of_epochs_is_refused():
    with pytest.raises(ValueError, match="'epochs' must be at least 0, got -1"):
        WarmUpSampler(UniformSampler(), -1)
