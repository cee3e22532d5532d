"""What a training history says is going wrong, in words (SPEC 11)."""
from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Callable, Container, Dict, List, Optional, Sequence, Tuple

import torch

History = Sequence[Dict[str, float]]
Settings = Optional[Container[str]]  # names that advice may hold; None for all

EPOCHS = 5  # fewer say nothing
WINDOW = 12  # epochs in which oscillation is looked for
SWING = 0.02  # of each term, from epoch to epoch, relative to the free energy
TURNS = 4  # how often it must change its direction in the window
COLLAPSE = 0.85  # share of the best figure that is left
UNIFORM = 0.97  # of the largest entropy
ALIKE = 0.97  # mean cosine of two users' scores
LEFT = 0.01  # by which uniformity falls in a few epochs where training is on its way out
FLAT = 0.01  # relative change of the loss
RISE = 1.5  # of the loss above its least value, relative to what it fell before
LEAST_RISE = 0.25  # relative to where it began
FALSE_NEGATIVES = 0.02  # of the drawn negatives, and
ABOVE_CHANCE = 3.0  # times as many as chance would draw


@dataclass(frozen=True)
class Diagnosis:
    """One thing that goes wrong.

    Attributes:
        name: of the signature.
        saw: what was seen, in figures.
        cause: the likely cause.
        change: the setting to change.
    """

    name: str
    saw: str
    cause: str
    change: str

    def __str__(self) -> str:
        return f'{self.name}: {self.saw}. Likely cause: {self.cause}. Try: {self.change}.'

    def to_dict(self) -> Dict[str, str]:
        """Return plain values."""
        return asdict(self)


def diagnose(history: History, metric: str, temperature: float = 1.0, settings: Settings = None) -> List[Diagnosis]:
    r"""Look for the signatures of failure in a training history.

    ``oscillation``
        In the last 12 epochs the energy and the entropy term :math:`-\tau S` both move from epoch to epoch by 2 % and
        more of their sum, against each other (correlation below -0.5), and the energy turns back at least four times.
    ``recall collapse``, ``over-fitting``
        The metric was best in the first half of the epochs and is now below 85 % of that: a collapse where 2 % of the
        drawn negatives are held-out positives, and three times as many as chance would give; over-fitting otherwise,
        where a larger gamma is among the advice if the second holds.
    ``scores alike``
        The scores of two users have a cosine above 0.97 in the mean. A TV-Diff of one hop has .1 (LastFM, Gowalla) to
        .6 (MovieLens small); with four hops .99 there.
    ``near-uniform scores``
        The rows' entropy is above 97 % of :math:`\log_2 N`, and has not fallen by 1 % of it in the last five epochs.
        Rows of a softmax begin there; clipped ones, as a diffusion model's, stay below with random weights too.
    ``flat loss``
        The loss has moved by less than 1 %.
    ``divergence``
        The loss has risen from its least value by 1.5 times what it fell before, and by a quarter of its first value.

    These numbers are rules of thumb, set where runs that provoke a signature and runs that do not lie apart
    (``tests/training/test_callbacks.py``).

    Args:
        history: a row an epoch: ``loss``, ``energy``, ``entropy`` (S, before weighting), the metric, and where they
            were watched ``uniformity`` (entropy of a row over :math:`\log_2 N`), ``similarity`` (mean cosine of two
            users' scores), ``false_negatives`` and ``false_negatives_by_chance`` (shares of the drawn negatives).
        metric: name of the column that epochs are selected by; higher is better.
        temperature: :math:`\tau`.
        settings: names, ``group.name``, that the advice may hold: those that the model has; ``None`` for all.

    Returns:
        What was found, worst first; nothing where all is well or there are fewer than 5 epochs.
    """
    if len(history) < EPOCHS:
        return []
    found = (check(history, metric, temperature, settings) for check in _CHECKS)
    return [diagnosis for diagnosis in found if diagnosis is not None]


def diagnose_all(history: History, metric: str, temperature: float = 1.0,
                 settings: Settings = None) -> List[Diagnosis]:
    """Return what :func:`diagnose` would have said after any epoch: each signature as it was first seen."""
    found: Dict[str, Diagnosis] = {}
    for epochs in range(EPOCHS, len(history) + 1):
        for diagnosis in diagnose(history[:epochs], metric, temperature, settings):
            found.setdefault(diagnosis.name, diagnosis)
    return list(found.values())


def diverged(what: str, settings: Settings = None) -> Diagnosis:
    """Return the diagnosis of a loss or a weight that is no longer finite."""
    lower = _advice(settings, ('a lower', 'training.lr loss.temperature diffusion.scale'))
    return Diagnosis('divergence', what, 'steps or noise too large', f'{lower}, in another folder')


def _advice(settings: Settings, *changes: Tuple[str, str]) -> str:
    """Return what to change: how, and the names of the settings, of which those are kept that the model has."""
    kept = []
    for how, names in changes:
        mine = [name for name in names.split() if settings is None or name in settings]
        if mine:
            kept.append(f'{how} ' + ' or '.join(part for part in (', '.join(mine[:-1]), mine[-1]) if part))
    return ', or '.join(kept)


def _column(history: History, name: str) -> torch.Tensor:
    return torch.tensor([row.get(name, float('nan')) for row in history], dtype=torch.float64)


def _divergence(history: History, metric: str, temperature: float, settings: Settings) -> Optional[Diagnosis]:
    loss = _column(history, 'loss')
    low = int(loss.argmin())
    fall, rise = float(loss[0] - loss[low]), float(loss[-1] - loss[low])
    if rise <= max(RISE * fall, LEAST_RISE * abs(float(loss[0]))):
        return None
    return diverged(f'the loss fell to {float(loss[low]):.4g} in epoch {low} and has risen to {float(loss[-1]):.4g}',
                    settings)


def _oscillation(history: History, metric: str, temperature: float, settings: Settings) -> Optional[Diagnosis]:
    last = history[-WINDOW:]
    terms = [_column(last, 'energy'), -temperature * _column(last, 'entropy')]
    steps = [term.diff() for term in terms]
    if len(last) < WINDOW or any(float(step.std()) == 0 for step in steps):
        return None
    swing = [float(step.abs().mean() / (terms[0] + terms[1]).abs().mean()) for step in steps]
    turns = int((steps[0][1:] * steps[0][:-1] < 0).sum())
    correlation = float(torch.corrcoef(torch.stack(steps))[0, 1])
    if min(swing) < SWING or turns < TURNS or correlation > -0.5:
        return None
    return Diagnosis('oscillation', f'energy and entropy term pull against each other: over {WINDOW} epochs they swing '
                     f'by {swing[0]:.1%} and {swing[1]:.1%} of the loss an epoch (correlation {correlation:.2f})',
                     'the temperature, at this step size, lets neither term win',
                     _advice(settings, ('a lower', 'loss.temperature training.lr')))


def _recall_collapse(history: History, metric: str, temperature: float, settings: Settings) -> Optional[Diagnosis]:
    values = _column(history, metric)
    best = int(values.argmax())
    if best > len(history) // 2 or float(values[-1]) >= COLLAPSE * float(values[best]):
        return None
    saw = (f'{metric} was {float(values[best]):.4f} in epoch {best} and is {float(values[-1]):.4f} in epoch '
           f'{len(history) - 1}')
    drawn, chance = (_column(history[best:], name).nanmean()
                     for name in ('false_negatives', 'false_negatives_by_chance'))
    harder: List[Tuple[str, str]] = []
    if bool(drawn > ABOVE_CHANCE * chance):
        harder = [('a larger', 'sampler.gamma')]  # where few positives are held out, their share is small anyway
        saw += (f'; {float(drawn):.2%} of the drawn negatives are held-out positives, where chance would give '
                f'{float(chance):.2%}')
        if float(drawn) > FALSE_NEGATIVES:
            return Diagnosis('recall collapse', saw, 'false negatives',
                             _advice(settings, ('a larger', 'sampler.gamma'), ('uniform for', 'sampler.name')))
    return Diagnosis('over-fitting', f'{saw}; the best epoch is kept', 'the training pairs are learnt by heart',
                     _advice(settings, ('a lower', 'training.lr training.lr_decay'),
                             ('more', 'model.dropout model.regularization'), ('some', 'training.average'), *harder))


def _scores_alike(history: History, metric: str, temperature: float, settings: Settings) -> Optional[Diagnosis]:
    similarity = history[-1].get('similarity', 0.0)
    if not similarity >= ALIKE:
        return None
    return Diagnosis('scores alike', f"the scores of two users have a cosine of {similarity:.3f} in the mean",
                     'over-smoothing by more than one hop, or weights that have hardly moved: one list for all',
                     _advice(settings, ('fewer', 'model.num_layers'), ('a larger', 'training.lr')))


def _near_uniform(history: History, metric: str, temperature: float, settings: Settings) -> Optional[Diagnosis]:
    uniformity = history[-1].get('uniformity', 0.0)
    if not uniformity >= UNIFORM or history[-EPOCHS].get('uniformity', 0.0) - uniformity >= LEFT:
        return None
    return Diagnosis('near-uniform scores', f"a row's entropy is {uniformity:.1%} of the largest there can be",
                     'weights that have hardly moved: the scores do not tell items apart',
                     _advice(settings, ('a larger', 'training.lr')))


def _flat_loss(history: History, metric: str, temperature: float, settings: Settings) -> Optional[Diagnosis]:
    loss = _column(history, 'loss')
    change = float((loss.max() - loss.min()) / loss.abs().max().clamp(min=1e-30))
    if change >= FLAT:
        return None
    return Diagnosis('flat loss', f'the loss has moved by {change:.2%} in {len(history)} epochs',
                     'steps too small, or noise that drowns the rows',
                     _advice(settings, ('a larger', 'training.lr'), ('a smaller', 'diffusion.scale')))


_CHECKS: Sequence[Callable[[History, str, float, Settings], Optional[Diagnosis]]] = (
    _divergence, _recall_collapse, _oscillation, _scores_alike, _near_uniform, _flat_loss)
