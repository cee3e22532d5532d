"""Files of ids and of recommendations."""
from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any, Container, Dict, Iterable, List, Union

from tvdiff_pyg.files import write_atomically

ROWS = 4096  # of a group of a Parquet file: what is held at a time


def read_ids(path: Union[str, Path], known: Container[str]) -> List[str]:
    """Read ids, one a line; empty lines do not count, and blanks around an id only where it is known with them.

    Args:
        path: the file.
        known: the ids of the run; others are returned too, without blanks around them.

    Raises:
        ValueError: the file cannot be read as UTF-8 text, or holds no id.
    """
    try:
        lines = Path(path).expanduser().read_text(encoding='utf-8-sig').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f'{path} cannot be read as ids, one a line: {error}') from error
    ids = [line if line in known else line.strip() for line in lines if line.strip()]
    if not ids:
        raise ValueError(f'{path} holds no ids: write one a line')
    return ids


def write_lists(answers: Iterable[Dict[str, Any]], path: Path) -> int:
    """Write lists as they come, whole or not at all, and return their number.

    Args:
        answers: what :meth:`tvdiff_pyg.training.Run.recommend` returns or ``recommend_all`` yields.
        path: ``.jsonl``, a line each with all that is known of the items, or ``.parquet``, with columns ``user``,
            ``items`` and ``scores``; must not exist.

    Raises:
        ValueError: another suffix, or the file exists.
        ImportError: Parquet without pyarrow.
    """
    if path.suffix not in ('.jsonl', '.parquet'):
        raise ValueError(f"{path} must end in .jsonl or .parquet")
    exists = f'{path} exists already: name another file with --out'
    if path.exists():
        raise ValueError(exists)
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0

    def write_json_lines(temporary: Path) -> None:
        nonlocal count
        with open(temporary, 'w', encoding='utf-8') as file:
            for count, answer in enumerate(answers, 1):
                file.write(json.dumps(answer, ensure_ascii=False) + '\n')

    def write_parquet(temporary: Path) -> None:
        nonlocal count
        schema = pyarrow.schema([('user', pyarrow.string()), ('items', pyarrow.list_(pyarrow.string())),
                                 ('scores', pyarrow.list_(pyarrow.float32()))])
        rest = iter(answers)
        with pyarrow.parquet.ParquetWriter(temporary, schema) as writer:
            while group := list(islice(rest, ROWS)):
                count += len(group)
                writer.write_table(pyarrow.table([
                    [answer.get('user') for answer in group],
                    *([[item[name] for item in answer['items']] for answer in group] for name in ('item', 'score'))],
                    schema=schema))

    write = write_json_lines
    if path.suffix == '.parquet':
        write = write_parquet
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise ImportError(f'Parquet needs pyarrow ({error}): pip install "tvdiff-pyg[parquet]"') from error
    try:
        write_atomically(path, write, replace=False)
    except FileExistsError as error:  # since then: of two at once, the first to finish stays
        raise ValueError(exists) from error
    return count
