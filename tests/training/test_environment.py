"""What a result says of the code that it comes from."""
from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytest.importorskip('pytorch_lightning')
from tvdiff_pyg.training.environment import commit, versions  # noqa: E402


def test_a_checkout_has_a_commit_and_an_installation_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / 'package'
    package.mkdir()
    file = package / 'a.py'
    file.write_text('a = 1\n')
    assert commit(package) is None
    monkeypatch.setenv('GIT_CONFIG_GLOBAL', '/dev/null')

    def git(*call: str) -> str:
        return subprocess.run(['git', '-C', str(tmp_path), '-c', 'user.name=a', '-c', 'user.email=a@b', *call],
                              capture_output=True, text=True, check=True).stdout.strip()

    git('init')
    commit.cache_clear()
    assert commit(package) is None  # nothing committed yet
    git('add', 'package')
    git('commit', '-m', 'first')
    git('tag', 'v1')
    commit.cache_clear()
    assert commit(package) == git('rev-parse', '--short=12', 'HEAD')
    file.write_text('a = 2\n')
    commit.cache_clear()
    assert str(commit(package)).endswith('-dirty')
    commit.cache_clear()
    assert versions()['torch'] and versions().get('commit') != ''
