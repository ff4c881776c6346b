"""What is shown to a user without a traceback: errors that can be mended, and memory that has run out."""

import contextlib
import re
from collections.abc import Iterator

_BREAK = re.compile(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*")

# What JAX says, which is not imported here; Python of a thread; and the loader of a library, under a limit.
_OF_MEMORY = (
    "RESOURCE_EXHAUSTED",
    "can't start new thread",
    "failed to map segment from shared object",
    "annot allocate memory",
)


def one_line(text: str) -> str:
    """Text as a terminal may show it: on one line, what is not printable written as its escape.

    Names in a stranger's file could otherwise move the cursor, or be what no terminal's encoding holds.
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in _BREAK.sub(" ", text))


def printable(text: str) -> str:
    """Lines as a terminal may show them, see ``one_line``."""
    return "\n".join(map(one_line, text.split("\n")))


class UserError(Exception):
    """Something the user can mend: a file, a flag, a value.

    The message is one line that names the place (file and line where there is one) and the cure. Command modules
    print it after ``error:`` and exit with status 2.
    """

    def __str__(self) -> str:
        return one_line(super().__str__())


class MissingPackage(UserError):
    """A package that is not installed, and the command that installs it: what needs it may be left out."""


@contextlib.contextmanager
def enough_memory(work: str, cure: str) -> Iterator[None]:
    """Turns an error of memory that has run out, on the host or on a device, into a UserError with its cure."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in _OF_MEMORY):
            raise
        size = re.search(r"allocating (\d+) bytes", str(error))
        more = f" ({int(size[1]) / 1e9:,.1f} GB more are wanted)" if size else ""
        raise UserError(f"memory has run out in {work}{more}; {cure}") from error


def refuse(message: str) -> None:
    """Raises a UserError: what a reader does about a bad part of a file, unless it is given another thing to do."""
    raise UserError(message)
