# %% [markdown]
"""
# TV-Diff: a quick start

Load real ratings as a PyG graph, train the model from its parts, look at what it has learned. The weights are those of
the last epoch: `train_tvdiff.py` keeps the best one, `own_data.py` starts from a table of yours. Extra `demo` needed.
"""

# %%
import argparse

import matplotlib.pyplot as plt
import torch

from tvdiff_pyg.datasets import load_dataset, statistics
from tvdiff_pyg.diffusion import GaussianDiffusion, NoiseSchedule
from tvdiff_pyg.nn import AnisotropicDenoiser, HelmholtzFreeEnergy, Popularity, TVDiff
from tvdiff_pyg.retrieval import recommend
from tvdiff_pyg.sampling import ARGumbelSampler
from tvdiff_pyg.split import Split
from tvdiff_pyg.thermodynamics import thermodynamics
from tvdiff_pyg.typing import Batch

parser = argparse.ArgumentParser()
parser.add_argument('--dataset', default='movielens-small')
parser.add_argument('--data-root')
parser.add_argument('--epochs', type=int, default=15)
args = parser.parse_args([] if 'get_ipython' in globals() else None)  # in a notebook, edit the defaults

# %% [markdown]
# ## The data: users, items, and who likes what
#
# A `HeteroData` with the relation `('user', 'rates', 'item')` and its reverse, original ids and titles.

# %%
data = load_dataset(args.dataset, args.data_root)
split = Split.from_data(data, 'holdout')
train = split.train
print(data, statistics(split.data))

# %% [markdown]
# ## The model: three views and a process
#
# A denoiser that looks at the graph, a free energy as the loss, hard negatives from the model's own ranking.

# %%
torch.manual_seed(0)
model = TVDiff(train, AnisotropicDenoiser(train.num_users, train.num_items, 256),
               GaussianDiffusion(NoiseSchedule(num_steps=5)),
               HelmholtzFreeEnergy('bce', temperature=1.0, reduction='sum'), ARGumbelSampler(gamma=0.2))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
generator = torch.Generator().manual_seed(0)  # of the order, steps, noise, dropout and negatives
on_validation, on_test = (split.evaluator(part, [20]) for part in ('validation', 'test'))
history = []
for epoch in range(1, args.epochs + 1):
    steps = []
    for users in torch.randperm(train.num_users, generator=generator).split(128):
        terms = model.training_loss(Batch(users), generator)
        optimizer.zero_grad()
        terms.loss.backward()
        optimizer.step()
        steps.append([float(terms.energy), float(terms.entropy)])
    history.append([*torch.tensor(steps).mean(0).tolist(), on_validation(model.scorer()).mean['recall@20']])
    print('epoch {:2d}   energy {:.5f}   entropy {:.5f}   validation R@20 {:.4f}'.format(epoch, *history[-1]))

# %%
figure, axes = plt.subplots(1, 3, figsize=(12, 3), layout='constrained')
for axis, name, values in zip(axes, ('energy E', 'entropy S', 'validation Recall@20'), zip(*history)):
    axis.plot(range(1, args.epochs + 1), values)
    axis.set(xlabel='epoch', title=name)
figure.savefig('quickstart.png', dpi=120)

# %% [markdown]
# ## How good are its lists?

# %%
test, popularity = (on_test(one.scorer()).mean for one in (model, Popularity(train)))
for name, value in test.items():
    print(f'{name:<14} TV-Diff {value:.4f}   popularity {popularity[name]:.4f}')

# %% [markdown]
# ## What does it recommend to the user of median activity? (*: liked indeed, by the test part)

# %%
title = data.item_attributes.get('title', data.item_id)
user = train.user_degree.argsort()[train.num_users // 2].view(1)
best = recommend(model, user, 10, split.seen_when_testing)
print(f'Person {data.user_id[int(user)]} likes', [title[item] for item in train.rows(user)[1][:5]])
for item, score in zip(best.items[0].tolist(), best.scores[0].tolist()):
    print(f"{score:.3f} {'*' if split.test.contains(user, torch.tensor([item])) else ' '} {title[item]}")

# %% [markdown]
# ## Energy and entropy of what it has learned
#
# A user's row is a distribution over the items; that of the data has the entropy log2 n and the energy n for n likes.

# %%
state = thermodynamics(model.scorer(), train)
print(f'energy: data {state.observed.double().mean():.2f}, model {state.energy.mean():.2f}')
print(f'entropy: data {state.data_entropy.mean():.2f} bits, model {state.entropy.mean():.2f} bits')
