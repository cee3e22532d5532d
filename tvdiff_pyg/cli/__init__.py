"""The command line: ``tvdiff demo | data | fit | test | recommend | export | thermo | report | serve``."""
from __future__ import annotations

import os
import sys
from typing import Optional, Sequence

from tvdiff_pyg.cli.commands import COMMANDS
from tvdiff_pyg.cli.parser import fail, make_parser, settings_files_first

DIVERGED = 3  # exit status
EXTRA = "this command needs the packages of the extra 'demo': pip install 'tvdiff-pyg[demo]'"


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Run the command line; what goes wrong ends with one line on standard error.

    Exit status: 0; 1, not enough memory; 2, wrong input or files; 3, a training that diverged, whose folder holds
    ``metrics.json`` if there was an epoch before that to keep; 130, interrupted.
    """
    # Tables are made and dropped at every step: huge pages spare most of the page faults that this costs. Torch reads
    # this once, at its first allocation, and ignores it where the system has no such pages.
    os.environ.setdefault('THP_MEM_ALLOC_ENABLE', '1')
    try:
        import jsonargparse  # noqa: F401
        import pytorch_lightning  # noqa: F401
        import safetensors  # noqa: F401

        from tvdiff_pyg.training import TrainingDiverged, TrainingInterrupted
    except ImportError as error:
        fail(f'{EXTRA} ({error})')

    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        options = make_parser().parse_args(settings_files_first(arguments))
        COMMANDS[options.command](options[options.command])
    except TrainingInterrupted as error:
        fail(str(error), status=130)
    except KeyboardInterrupt:
        fail('interrupted', status=130)
    except BrokenPipeError:  # the reader of our output has gone
        sys.stderr.close()
    except (ValueError, OSError, ImportError) as error:
        fail(str(error))
    except TrainingDiverged as error:
        fail(str(error), status=DIVERGED)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and 'allocate' not in str(error) and 'out of memory' not in str(error):
            raise
        fail(f'not enough memory ({str(error) or type(error).__name__}): take a smaller model.hidden_channels or '
             f'training.batch_size', status=1)
