"""Writing files so that a reader never finds half of one, and no two processes write the same."""
from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import IO, Any, Callable


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


def lock(file: IO, wait: bool) -> bool:
    """Hold an open file for this process alone until it is closed, and tell whether no other process holds it.

    The system lets go of it whatever ends the process. Where there are no such locks (Windows, some network file
    systems), nothing is guarded.

    Args:
        file: an open file.
        wait: whether to wait for the process that holds it.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    return True
