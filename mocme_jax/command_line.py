"""What every command does around its work: a line for a user's error, a quiet end for Ctrl-C, a status."""

import errno
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from mocme_jax.errors import UserError, enough_memory, one_line

USER_ERROR = 2
FAILED = 1
INTERRUPTED = 130


def run(main: Callable[[], int | None]) -> NoReturn:
    """Runs a command's main function and ends the process with its status.

    Args:
      main: returns an exit status, or None for 0.

    The status is 2 after a `UserError` and 1 after a `FloatingPointError` (a loss or score that is not finite); their
    message goes to stderr as one line ``error: ...``. It is 130 after Ctrl-C. Anything else is a defect of the program
    and keeps its traceback.
    """
    try:
        with enough_memory("this command", "free some memory, or use a machine or devices with more"):
            status = main() or 0
        # None where it was closed before the start.
        if sys.stdout is not None:
            sys.stdout.flush()
    except (UserError, FloatingPointError) as error:
        print(f"error: {one_line(str(error).strip())}", file=sys.stderr)
        status = USER_ERROR if isinstance(error, UserError) else FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = INTERRUPTED
    except BrokenPipeError:
        # The reader (`... | head`) has gone.
        _end_output()
        status = 0
    except OSError as error:
        if error.filename is None and error.errno == errno.ENOENT and not _has_a_folder():
            print("error: the working directory has been deleted; change to another one", file=sys.stderr)
            sys.exit(USER_ERROR)
        # An error without a file's name is one of standard output.
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EIO, errno.EBADF):
            raise
        print(f"error: standard output cannot be written ({error.strerror})", file=sys.stderr)
        _end_output()
        status = USER_ERROR
    sys.exit(status)


def _has_a_folder() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _end_output() -> None:
    """Points standard output elsewhere, or Python complains of it again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
