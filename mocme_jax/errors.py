"""The one error type that is shown to a user without a traceback."""

import re

_BREAK = re.compile(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*")


def one_line(text: str) -> str:
    """Text as a terminal may show it: on one line, what is not printable written as its escape.

    Names in a stranger's file could otherwise move the cursor, or be what no terminal's encoding holds.
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in _BREAK.sub(" ", text))


class UserError(Exception):
    """Something the user can mend: a file, a flag, a value.

    The message is one line that names the place (file and line where there is one) and the cure. Command modules
    print it after ``error:`` and exit with status 2.
    """

    def __str__(self) -> str:
        return one_line(super().__str__())
