"""GaussianDiffusion with somebody else's denoiser: an MLP on user rows, as in DiffRec (arXiv 2304.04971).

The process knows no network: it asks for a function of (x_t, t), here PyG's MLP on the noisy row beside the step's
embedding. Training noises rows with `q_sample` and compares them with what `predict_x0` makes of the output; ranking
runs `sample` from the clean rows. A schedule of scale 0 adds no noise: an autoencoder with dropout, the control.
"""
import torch
import torch.nn.functional as F
from torch_geometric.nn import MLP

from experiment import Selection, options, summary  # the file beside this one
from tvdiff_pyg.datasets import load_dataset
from tvdiff_pyg.diffusion import GaussianDiffusion, NoiseSchedule
from tvdiff_pyg.nn import TimeEmbedding
from tvdiff_pyg.split import Split

HIDDEN, TIME, NUM_STEPS, BATCH_SIZE, LR = 300, 10, 5, 64, 1e-3


class RowMLP(torch.nn.Module):
    """Rows [B, N] and steps [B] to an output [B, N]."""

    def __init__(self, num_items):
        super().__init__()
        self.embed = TimeEmbedding(TIME)
        self.mlp = MLP([num_items + TIME, HIDDEN, num_items], act='tanh', norm=None)

    def forward(self, x_t, t):
        x_t = F.dropout(x_t, 0.5, self.training)  # not normalised: the reverse process feeds outputs back
        return self.mlp(torch.cat([x_t, self.embed(t)], dim=1))


def main(argv=None):
    parser = options(__doc__)
    parser.add_argument('--scales', type=float, nargs='+', default=[0.0, 0.1, 10.0], help='of the noise')
    args = parser.parse_args(argv)

    split = Split.from_data(load_dataset(args.dataset, args.data_root), 'holdout')
    train = split.train
    select, figures = Selection(split), {}
    popularity = select.popularity()
    for scale in args.scales:
        diffusion, runs = GaussianDiffusion(NoiseSchedule('linear-var', NUM_STEPS, scale), prediction='x0'), []
        for seed in args.seeds:
            torch.manual_seed(seed)  # PyG's initialisation, and dropout
            generator = torch.Generator().manual_seed(seed)
            denoiser = RowMLP(train.num_items)
            scorer = lambda users: diffusion.sample(denoiser, train.dense(users, torch.float))  # noqa: E731
            optimizer = torch.optim.Adam(denoiser.parameters(), lr=LR)
            best, losses = None, []
            for epoch in range(1, args.epochs + 1):
                denoiser.train()
                for users in torch.randperm(train.num_users, generator=generator).split(BATCH_SIZE):
                    x_0 = train.dense(users, torch.float)  # [B, N]: this network reads whole rows
                    t = torch.randint(NUM_STEPS, users.shape, generator=generator)
                    x_t = diffusion.q_sample(x_0, t, generator=generator)
                    x0_hat = diffusion.predict_x0(x_t, t, denoiser(x_t, t))
                    loss = (x_0 - x0_hat).square().sum(1).mean()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    losses.append(float(loss.detach()))
                denoiser.eval()
                best = select.better(best, epoch, scorer)
            runs.append((*best, losses[0], losses[-1]))
        name = f'T = {NUM_STEPS}, scale {scale:g}'
        figures[name] = summary(name, runs)
    return figures, popularity


if __name__ == '__main__':
    main()
