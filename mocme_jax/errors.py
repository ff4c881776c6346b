"""The one error type that is shown to a user without a traceback."""


class UserError(Exception):
    """Something the user can mend: a file, a flag, a value.

    The message is one line that names the place (file and line where there is one) and the cure. Command modules
    print it after ``error:`` and exit with status 2.
    """
