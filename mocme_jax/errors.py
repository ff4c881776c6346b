"""Errors that are shown to users without a traceback: ``UserError``, and errors of memory."""

import contextlib
import os
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
    """Convert text for a terminal: on one line, with escapes for characters that are not printable.

    Otherwise, names in a file of unknown origin could move the cursor, or have no encoding in the terminal.
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in _BREAK.sub(" ", text))


def printable(text: str) -> str:
    """Convert lines for a terminal; see ``one_line``."""
    return "\n".join(map(one_line, text.split("\n")))


class UserError(Exception):
    """An error that the user can fix, such as a wrong file, flag or value.

    The message is one line that names the place (file and line, if there is one) and what to do. Commands print it
    after ``error:`` and exit with status 2.
    """

    def __str__(self) -> str:
        return one_line(super().__str__())


class MissingPackage(UserError):
    """A package is not installed. The message has the command that installs it."""


@contextlib.contextmanager
def enough_memory(work: str, cure: str) -> Iterator[None]:
    """Turn errors of exhausted memory, on the host or on a device, into a UserError that says what to do.

    Args:
      work: what needs the memory, for the message.
      cure: what to do, for the message.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in _OF_MEMORY):
            raise
        size = re.search(r"allocating (\d+) bytes", str(error))
        more = f" ({int(size[1]) / 1e9:,.1f} GB more are needed)" if size else ""
        raise UserError(f"out of memory in {work}{more}; {cure}") from error


def check_place(name: str, place: str | os.PathLike) -> None:
    """Raise a UserError if a file or folder is given by an address, such as ``gs://bucket/run``.

    Args:
      name: what gives the place, for the message.
      place: the place.
    """
    # A Path of it has a single slash.
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", os.fspath(place)):
        raise UserError(
            f"{name}: {place} is an address, but only files and folders of this machine can be used; mount the storage "
            "(for Google Cloud: gcsfuse) or copy the files, and give that folder"
        )


def refuse(message: str) -> None:
    """Raise a UserError with this message. Readers call it by default for a bad part of a file."""
    raise UserError(message)
