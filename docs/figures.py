"""The pictures of docs/method.md: ``python docs/figures.py``.

The second is computed: negatives drawn on MovieLens small, hold-out, by the scores of GF-CF, a model that has learnt
something.
"""
from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from tvdiff_pyg.datasets import MovieLensSmall
from tvdiff_pyg.nn import GFCF
from tvdiff_pyg.sampling import ARGumbelSampler, NegativeSampler, PopularitySampler, UniformSampler, dense_scores
from tvdiff_pyg.split import Split

OUT = Path(__file__).parent / 'images'
VIEWS = {'process': '#e8e8e8', 'I': '#f6d5c4', 'II': '#cfe3f2', 'III': '#d8ecd2'}


def save(figure: Figure, name: str) -> None:
    OUT.mkdir(exist_ok=True)
    figure.savefig(OUT / f'{name}.svg', metadata={'Date': None})


def box(axes: Any, x: float, y: float, width: float, text: str, view: str, height: float = 0.9) -> None:
    axes.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height, facecolor=VIEWS[view], linewidth=0.8,
                                  boxstyle='round,pad=0.02,rounding_size=0.1', edgecolor='#444444'))
    axes.text(x, y, text, ha='center', va='center', fontsize=8.5, linespacing=1.35)


def arrow(axes: Any, start: tuple, end: tuple, text: str = '', bend: float = 0.0, at: tuple = (0, 0)) -> None:
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle='-|>', mutation_scale=9, color='#444444', linewidth=0.9,
                                   connectionstyle=f'arc3,rad={bend}'))
    axes.text((start[0] + end[0]) / 2 + at[0], (start[1] + end[1]) / 2 + at[1], text, ha='center', va='center',
              fontsize=7.5, color='#333333')


def method() -> None:
    """Draw what a training step does."""
    figure = Figure(figsize=(8.4, 3.9), layout='constrained')
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    axes.set(xlim=(0, 12.4), ylim=(-0.1, 5.7))
    axes.axis('off')
    box(axes, 1.1, 3.6, 1.8, "a user's row\n$x_0$ of $R$", 'process')
    box(axes, 3.9, 3.6, 1.9, 'noisy row $x_t$', 'process')
    box(axes, 6.9, 3.6, 2.3, 'user code\n$u = \\tanh(x_t W_I \\oplus e_t)$', 'II')
    box(axes, 6.9, 1.2, 2.3, 'item codes\n$H = \\tanh(\\bar R^T W_U)$', 'II')
    box(axes, 3.9, 1.2, 1.9, 'graph $\\bar R$\none hop', 'II')
    box(axes, 9.4, 2.4, 1.7, 'scores\n$\\hat R = u H^T$', 'II')
    box(axes, 11.5, 3.9, 1.5, 'energy\nall items', 'I')
    box(axes, 11.5, 2.4, 1.5, 'entropy\na few pairs', 'I')
    box(axes, 9.4, 0.7, 2.1, 'hard negatives\nAR-GSP', 'III')
    arrow(axes, (2.05, 3.6), (2.9, 3.6), 'noise, $t$', at=(0, 0.3))
    arrow(axes, (4.9, 3.6), (5.7, 3.6))
    arrow(axes, (4.9, 1.2), (5.7, 1.2))
    arrow(axes, (8.1, 3.4), (8.9, 2.9))
    arrow(axes, (8.1, 1.4), (8.9, 1.9))
    arrow(axes, (10.3, 2.6), (11.0, 3.4))
    arrow(axes, (10.3, 2.4), (10.7, 2.4))
    arrow(axes, (9.4, 1.9), (9.4, 1.2), 'ranking', at=(0.55, 0))
    arrow(axes, (10.5, 0.8), (11.5, 1.9), bend=0.25)
    arrow(axes, (9.5, 2.9), (3.9, 4.1), bend=0.5)
    axes.text(6.9, 5.35, r'ranking a user: again and again from the output, $t = T - 1 \ldots 0$, without noise',
              ha='center', fontsize=7.5, color='#333333')
    for x, view, name in ((0.2, 'I', 'view I: free energy'), (2.6, 'II', 'view II: anisotropic denoiser'),
                          (5.4, 'III', 'view III: acceptance-rejection Gumbel')):
        axes.text(x, 0.02, name, fontsize=7.5, bbox={'facecolor': VIEWS[view], 'edgecolor': 'none', 'pad': 2})
    save(figure, 'method')


def negatives(count: int = 20_000) -> None:
    """Draw where negatives stand in a model's ranking, and how many of them people will like after all."""
    split = Split.from_data(MovieLensSmall()[0], 'holdout')
    train, generator = split.train, torch.Generator().manual_seed(0)
    users = torch.randint(train.num_users, (count,), generator=generator)
    scorer = GFCF(train, 64).scorer()
    scores = torch.cat([scorer(block) for block in torch.arange(train.num_users).split(128)])  # 671 x 5,662
    rank = (-scores).argsort(1).argsort(1)  # 0 for the best

    def draw(sampler: NegativeSampler) -> tuple:
        row, item = sampler(train, users, torch.ones_like(users), dense_scores(scores[users]),
                            torch.randint(50, users.shape, generator=generator), 50, generator)
        return users[row], item

    def false_negatives(sampler: NegativeSampler) -> float:
        user, item = draw(sampler)
        assert split.validation is not None
        return float((split.validation.contains(user, item) | split.test.contains(user, item)).double().mean())

    figure = Figure(figsize=(8.4, 3.0), layout='constrained')
    FigureCanvasSVG(figure)
    left, right = figure.subplots(1, 2)
    samplers = {'uniform': UniformSampler(), 'by popularity': PopularitySampler(),
                'AR-GSP, gamma 0.2': ARGumbelSampler(0.2), 'AR-GSP, gamma 0.05': ARGumbelSampler(0.05)}
    for name, sampler in samplers.items():
        user, item = draw(sampler)
        place = (rank[user, item].double() / train.num_items).sort().values
        left.plot(place[::100].numpy(), torch.linspace(0, 1, place[::100].numel()).numpy(), label=name)
    left.set(xlabel="place in the model's ranking, of the catalogue", ylabel='share of the negatives')
    gammas = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
    for weights in ('score', 'flat'):
        shares = [false_negatives(ARGumbelSampler(gamma, weights)) for gamma in gammas]
        right.plot(gammas, shares, 'o-', markersize=3, label=f'AR-GSP, {weights}')
        print(f'held out, AR-GSP, {weights}:', {gamma: round(share, 4) for gamma, share in zip(gammas, shares)})
    uniform = false_negatives(UniformSampler())
    right.axhline(uniform, color='grey', linestyle='--', linewidth=1, label='uniform')
    print(f'held out, uniform: {uniform:.4f}')
    right.set(xlabel='gamma', ylabel='share that is held out', xscale='log', ylim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    save(figure, 'negatives')


if __name__ == '__main__':
    method()
    negatives()
