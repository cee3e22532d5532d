"""What a run looks like: its training, and its place in the plane of energy and entropy."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Optional, Sequence, Tuple

from tvdiff_pyg.files import write_atomically
from tvdiff_pyg.thermodynamics import Thermodynamics
from tvdiff_pyg.training.module import SELECTION_METRIC
from tvdiff_pyg.training.recipe import Recipe

_PAIRWISE = 'loss terms', 'regulariser', 'negative log-likelihood'
LOSS_TERMS: Dict[str, Tuple[str, str, Optional[str]]] = {
    'tv-diff': ('free energy, temperature {:g}', 'energy E', r'entropy term $-\tau S$'),
    'diffrec': ('loss', 'reconstruction error', None),
    'lightgcn': _PAIRWISE,
    'bpr-mf': _PAIRWISE,
}
"""What the loss of each model that trains is, and what the columns ``energy`` and ``entropy`` of its history hold: the
first as it is, the second times minus the temperature, which is 1 where a model has none."""


def training_figure(history: Sequence[Mapping[str, Any]], best: int, selected_on: str, recipe: Recipe) -> Any:
    """Draw the loss terms and the selection metric over the epochs."""
    title, first, second = LOSS_TERMS[recipe.model.name]
    temperature = recipe.loss.temperature
    epoch = [row['epoch'] for row in history]
    metric = f'{selected_on}/{SELECTION_METRIC}'
    figure = _figure(10, 3.6)
    left, right = figure.subplots(1, 2)
    left.plot(epoch, [row['energy'] for row in history], color='tab:red')
    left.set_xlabel('epoch')
    left.set_ylabel(first, color='tab:red')
    if second is not None:
        twin = left.twinx()
        twin.plot(epoch, [-temperature * row['entropy'] for row in history], color='tab:blue')
        twin.set_ylabel(second, color='tab:blue')
    left.set_title(title.format(temperature))
    right.plot(epoch, [row[metric] for row in history], color='tab:green')
    right.axvline(best, color='grey', linestyle=':', label=f'best epoch {best}')
    right.set_xlabel('epoch')
    right.set_ylabel(f'{selected_on} {SELECTION_METRIC}')
    right.set_title('selected on ' + selected_on + (' (published protocol)' if selected_on == 'test' else ''))
    right.legend()
    return figure


def reconstruction_figure(seen: Mapping[str, Thermodynamics]) -> Any:
    """Draw, for each run by its name, energy and entropy of every user's row: the original's and the model's.

    Users stand in the order of their number of interactions.
    """
    figure = _figure(10, 3.2 * len(seen))
    for (name, value), (left, right) in zip(seen.items(), figure.subplots(len(seen), 2, squeeze=False)):
        order = value.observed.argsort(stable=True)
        for axes, what, original, model in (
                (left, 'energy U', value.observed, value.energy),
                (right, 'entropy S, bits', value.data_entropy, value.entropy)):
            axes.plot(model[order].numpy(), '.', markersize=2, alpha=0.5, color='tab:orange', label='reconstructed')
            axes.plot(original[order].numpy(), color='black', linewidth=1, label='original')
            axes.set_ylabel(what)
            axes.set_xlabel('user, by number of interactions')
            axes.set_title(_plain(name), fontsize='medium')
        left.set_yscale('symlog', linthresh=1)
        left.legend(loc='upper left')
    return figure


def plane_figure(totals: Mapping[str, Mapping[str, float]], paths: Mapping[str, Sequence[Mapping[str, Any]]]) -> Any:
    """Draw runs in the plane of the differences from the data, as means over users.

    Args:
        totals: ``delta_energy`` and ``delta_entropy`` of each run by its name.
        paths: the training history of those that have one with these columns: where they came from, as means over
            the sample of users that was watched, which need not end in the dot.
    """
    figure = _figure(6, 4.5)
    axes = figure.subplots()
    for number, (name, total) in enumerate(totals.items()):
        color = f'C{number % 10}'
        path = [row for row in paths.get(name, ()) if 'delta_energy' in row]
        axes.plot([row['delta_energy'] for row in path], [row['delta_entropy'] for row in path], '-', linewidth=0.8,
                  color=color, alpha=0.6)
        axes.plot(total['delta_energy'], total['delta_entropy'], 'o', color=color, label=_plain(name))
    axes.axhline(0, color='grey', linewidth=0.5)
    axes.axvline(0, color='grey', linewidth=0.5)
    axes.set_xlabel(r'$\Delta U$ a user')
    axes.set_ylabel(r'$\Delta S$ a user, bits')
    axes.set_title('data at 0, 0; dots: finished runs; lines: sampled users, epoch by epoch', fontsize='medium')
    axes.legend(fontsize='small')
    return figure


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    save: Callable[[Any], None] = lambda file: figure.savefig(file, format='png', dpi=120)  # noqa: E731
    write_atomically(path, save)


def _plain(text: str) -> str:
    """Keep matplotlib from reading a name as mathematics."""
    return text.replace('$', r'\$')


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout='constrained')
    FigureCanvasAgg(figure)  # no display, and no state shared with whoever else draws
    return figure
