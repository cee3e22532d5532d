"""Writing files so that a reader never finds half of one."""
from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Callable


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, see it on the disk, and put it in place in one step."""
    temporary = path.with_name(f'.{path.name}.part')
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # what the user's umask makes of a new file; some writers are stricter
        write(temporary)
        temporary.chmod(mode)
        with open(temporary, 'rb+') as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding='utf-8'))


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + '\n')
