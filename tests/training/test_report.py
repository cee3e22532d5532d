"""The report as a browser shows it."""
from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest

pytest.importorskip('pytorch_lightning')
from tvdiff_pyg import diagnosis  # noqa: E402
from tvdiff_pyg.cli import main  # noqa: E402
from tvdiff_pyg.training import Run  # noqa: E402
from tvdiff_pyg.training.people import person, sample_people  # noqa: E402

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
LOOK = """<script>addEventListener('load', () => { document.title = JSON.stringify({
  images: document.images.length, broken: [...document.images].filter(image => image.naturalWidth < 100).length,
  fetched: performance.getEntriesByType('resource').map(entry => entry.name).filter(name => !name.startsWith('data:')),
  wide: document.documentElement.scrollWidth > innerWidth, text: document.body.innerText,
  hits: document.querySelectorAll('li.hit').length, scripts: document.scripts.length }) })</script>"""


@pytest.fixture(scope='module')
def runs(fit_options: Callable[..., List[str]], ratings_file: Path,
         tmp_path_factory: pytest.TempPathFactory) -> List[Path]:
    """One that has a diagnosis, and one in closed form, with a name that HTML must not take for its own."""
    folder = tmp_path_factory.mktemp('report')
    flat, ease = folder / 'flat', folder / '<b>ease</b> & co'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diagnosis, 'FLAT', 2.0)  # of a few dozen users, the noise alone moves more than 1 %
        main(fit_options('--out', str(flat), '--training.lr=1e-9', '--max-epochs', '6', '--training.patience=9'))
    main(['fit', '--dataset.path', str(ratings_file), '--model.name', 'ease', '--out', str(ease)])
    return [flat, ease]


@pytest.fixture(scope='module')
def report(runs: List[Path]) -> Path:
    out = runs[0].parent / 'new' / 'report.html'
    main(['report', *map(str, runs), '--out', str(out)])
    return out


class _Links(HTMLParser):
    """Collects what a page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.references: List[str] = []
        self.tags: List[str] = []

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.tags.append(tag)
        self.references += [value for name, value in attributes if name in ('src', 'href', 'srcset', 'data', 'action')]


def test_it_refers_to_nothing_outside_itself(report: Path) -> None:
    page = _Links()
    page.feed(report.read_text(encoding='utf-8'))
    assert len(page.references) == 4
    assert all(reference.startswith(('#', 'data:image/png;base64,')) for reference in page.references)
    assert 'script' not in page.tags and 'link' not in page.tags and page.tags.count('b') < 10
    assert 'url(' not in report.read_text(encoding='utf-8')


def _look(report: Path, tmp_path: Path) -> Dict[str, Any]:
    """Open the page in a headless browser and return what a script finds there."""
    copy = tmp_path / 'page.html'
    copy.write_text(report.read_text(encoding='utf-8').replace('</body>', f'{LOOK}</body>'), encoding='utf-8')
    assert CHROMIUM is not None
    page = subprocess.run(
        [CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
         '--disable-background-networking', '--disable-component-update', '--disable-sync',
         f'--user-data-dir={tmp_path / "profile"}', '--window-size=1000,800', '--virtual-time-budget=5000',
         '--dump-dom', copy.as_uri()], capture_output=True, text=True, timeout=120, check=True).stdout
    title = re.search(r'<title>(.*?)</title>', page, re.DOTALL)
    assert title is not None
    return json.loads(title[1].replace('&lt;', '<').replace('&gt;', '>').replace('&amp;', '&'))  # type: ignore


@pytest.mark.skipif(CHROMIUM is None, reason='needs Chromium: apt-get install chromium')
def test_a_browser_shows_it_whole(report: Path, runs: List[Path], tmp_path: Path) -> None:
    seen = _look(report, tmp_path)
    assert (seen['images'], seen['broken'], seen['fetched'], seen['wide'], seen['scripts']) == (2, 0, [], False, 1)
    text = seen['text']
    assert 'flat loss: the loss has moved by' in text and 'closed form' in text
    assert '<b>ease</b> & co' in text  # shown, not obeyed
    for folder in runs:
        run = Run.load(folder)
        assert f"{run.metrics['test']['recall@20']:.4f}" in text
        for user in sample_people(run):
            seen_by = person(run, user)
            assert f"User {seen_by['user']}, {seen_by['number']} items" in text
            listed = ''.join(f"{item['item']}\n" for item in seen_by['recommended'])
            assert listed in f'{text}\n'
        means = run.thermodynamics(1000)
        assert f"{float(means.delta_energy.mean()):.2f}" in text and f"{float(means.delta_entropy.mean()):.3f}" in text
    assert seen['hits'] > 0


def test_runs_of_different_splits_are_not_compared(report: Path, runs: List[Path], run_folder: Path,
                                                   tmp_path: Path) -> None:
    assert 'cannot be compared' not in report.read_text(encoding='utf-8')
    out = tmp_path / 'both.html'
    paper = tmp_path / 'paper'
    main(['fit', '--config', str(runs[0] / 'config.yaml'), '--protocol', 'paper', '--max-epochs', '1',
          '--out', str(paper)])
    main(['report', str(runs[0]), str(paper), '--out', str(out)])
    text = out.read_text(encoding='utf-8')
    assert 'cannot be compared' in text and 'SELECTED ON TEST' in text


def test_a_run_without_its_log_is_not_one_in_closed_form(runs: List[Path], tmp_path: Path) -> None:
    shutil.copytree(runs[0], tmp_path / 'run')
    (tmp_path / 'run' / 'log.csv').unlink()
    metrics = tmp_path / 'run' / 'metrics.json'
    metrics.write_text(json.dumps({**json.loads(metrics.read_text()), 'diagnoses': []}))
    main(['report', str(tmp_path / 'run'), '--out', str(tmp_path / 'out.html')])
    text = (tmp_path / 'out.html').read_text(encoding='utf-8')
    assert 'has no log.csv any more' in text and 'closed form' not in text


@pytest.mark.parametrize('command', ['report', 'thermo'])
def test_nothing_is_overwritten_and_wrong_runs_are_named(command: str, runs: List[Path], tmp_path: Path,
                                                         capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / 'out.html'
    out.write_text('mine')
    for arguments, expected in (
            ([str(runs[0]), '--out', str(out)], 'exists already: name another'),
            ([str(runs[0]), str(runs[0]) + '/.', '--out', str(tmp_path / 'x')], 'a run is named twice'),
            ([str(tmp_path / 'none'), '--out', str(tmp_path / 'x')], 'is not a run folder')):
        with pytest.raises(SystemExit) as caught:
            main([command, *arguments])
        assert caught.value.code == 2 and expected in capsys.readouterr().err
    assert out.read_text() == 'mine' and not (tmp_path / 'x').exists()
