"""``tvdiff report``: runs in one HTML file that needs no network."""
from __future__ import annotations

import io
from base64 import b64encode
from importlib import resources
from pathlib import Path
from typing import Any, Dict, List, Sequence, Union

from tvdiff_pyg import __version__
from tvdiff_pyg.files import write_text
from tvdiff_pyg.training.describe import describe_item, describe_run
from tvdiff_pyg.training.folder import RunError, same_split
from tvdiff_pyg.training.people import person, sample_people
from tvdiff_pyg.training.plots import plane_figure, training_figure
from tvdiff_pyg.training.run import Run
from tvdiff_pyg.training.thermo import distinct_names, run_label

SHOWN = ('recall@20', 'ndcg@20', 'coverage@20')
THERMO_USERS = 1000  # of which energy and entropy are estimated


def write_report(folders: Sequence[Union[str, Path]], out: Path) -> None:
    """Write a report of finished runs: settings, figures, curves, energy and entropy, diagnoses, recommendations.

    Args:
        folders: the runs.
        out: the HTML file; must not exist.

    Raises:
        RunError: a folder holds no finished run, is named twice, or ``out`` exists.
    """
    import jinja2

    names = distinct_names(folders)
    if out.exists():
        raise RunError(f'{out} exists already: name another file with --out')
    runs: Dict[str, Dict[str, Any]] = {}
    for name in names:
        run = Run.load(name)  # one at a time: its tables go before the next run's come
        runs[run_label(run, runs)] = _section(run)
    plane = plane_figure({label: run['thermo'] for label, run in runs.items()},
                         {label: run['history'] for label, run in runs.items()})
    template = jinja2.Template((resources.files('tvdiff_pyg') / 'training' / 'report.html').read_text(encoding='utf-8'),
                               autoescape=True, trim_blocks=True, lstrip_blocks=True,
                               undefined=jinja2.StrictUndefined)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, template.render(runs=runs, shown=SHOWN, plane=_image(plane), version=__version__,
                                    comparable=same_split(run['metrics'] for run in runs.values()),
                                    describe_item=describe_item))


def _section(run: Run) -> Dict[str, Any]:
    metrics = run.metrics
    thermo = run.thermodynamics(THERMO_USERS)
    total, size = thermo.total(), thermo.population
    history = run.history()
    curves = None
    if history:
        curves = _image(training_figure(history, metrics['epoch'], metrics['selected_on'], run.recipe))
    return {
        'folder': str(run.folder), 'metrics': metrics, 'text': describe_run({**metrics, 'diagnoses': []}),
        'settings': run.recipe.to_dict(),
        'history': history, 'curves': curves, 'diagnoses': metrics.get('diagnoses', []),
        'thermo': {name: value / size for name, value in total.items()}, 'thermo_users': thermo.users.numel(),
        'people': _people(run),
    }


def _people(run: Run) -> List[Dict[str, Any]]:
    return [person(run, user) for user in sample_people(run)]


def _image(figure: Any) -> str:
    """Return a figure as a data URI."""
    file = io.BytesIO()
    figure.savefig(file, format='png', dpi=110)
    return f'data:image/png;base64,{b64encode(file.getvalue()).decode()}'
