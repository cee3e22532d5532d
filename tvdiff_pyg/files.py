"""Writing files so that a reader never finds half of one, and no two processes write the same."""
from __future__ import annotations

import errno
import json
import os
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Callable, Iterator, Tuple, Type


def write_atomically(path: Path, write: Callable[[Path], Any], replace: bool = True,
                     errors: Tuple[Type[Exception], ...] = ()) -> None:
    """Let ``write`` fill a temporary file beside ``path``, see it on the disk, and put it in place in one step.

    The temporary file is this call's own: of several that write one path, each writes a whole file, and the last stays.

    Args:
        path: the file.
        write: is called with the path of the temporary file.
        replace: whether a file that stands there is replaced.
        errors: what ``write`` raises instead of an ``OSError`` where it cannot write.

    Raises:
        FileExistsError: ``path`` is there, perhaps only since ``write`` began, and ``replace`` is false.
        OSError: it cannot be written; the message names a path, ``strerror`` is the system's.
    """
    failures: Tuple[Type[Exception], ...] = (OSError, *errors)
    temporary = path.with_name(f'.{path.name}.{secrets.token_hex(4)}.part')
    try:
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode  # what the user's umask makes of a new file; some writers are stricter
        write(temporary)
        temporary.chmod(mode)
        with open(temporary, 'rb+') as file:
            os.fsync(file.fileno())
        if replace or not _link(temporary, path):
            os.replace(temporary, path)
    except failures as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        kept = ' What stood there before is kept' if path.exists() else ''
        told = OSError(f'{path} cannot be written ({" ".join(str(error).split())}): is the disk full?{kept}')
        told.strerror = getattr(error, 'strerror', None)  # the system's own word, as others have it
        raise told from error
    finally:
        temporary.unlink(missing_ok=True)


def _link(source: Path, target: Path) -> bool:
    """Give a file a second name that must be free, and tell whether the file system can do that."""
    try:
        os.link(source, target)
    except OSError:
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, 'exists already', str(target)) from None
        return False
    return True


def remove_parts(path: Path) -> None:
    """Remove what :func:`write_atomically` left of ``path`` where it was killed; nobody may be writing it now."""
    for part in path.parent.glob(f'.{path.name}.*.part'):
        part.unlink(missing_ok=True)


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


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold ``path`` for this process alone, of all that ask for it so; a file ``.lock`` beside it is left."""
    with open(path.with_suffix('.lock'), 'w', encoding='utf-8') as file:
        lock(file, wait=True)
        yield
