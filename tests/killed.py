"""Code that is killed at one of its changes to the disk, as SIGKILL would: from then on it changes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

# Each call changes what is on the disk, or makes sure that it is there.
CHANGES = ("mkdir", "rmdir", "unlink", "replace", "rename", "fsync", "link", "truncate")


class Killed(BaseException):
    """The process has ended; whoever catches it can't change anything any more."""


def killed_at_each_change(action: Callable[[], object], before: Callable[[], object]) -> Iterator[int]:
    """Runs an action over and over, killed before its first change, its second ..., until it ends by itself.

    Args:
      action: what is killed.
      before: puts things as they are at the start; called before each.

    Yields:
      The number of changes that were made, after each kill.
    """
    allowed = 0
    while True:
        before()
        if not _killed(action, allowed):
            return
        yield allowed
        allowed += 1


def _killed(action: Callable[[], object], allowed: int) -> bool:
    made = 0

    def change() -> None:
        nonlocal made
        if made >= allowed:
            raise Killed
        made += 1

    def counted(function: Callable) -> Callable:
        def call(*args, **kwargs):
            change()
            return function(*args, **kwargs)

        return call

    really_open = os.open

    def opened(path, flags, *args, **kwargs):
        if flags & os.O_CREAT:
            change()
        return really_open(path, flags, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        for name in CHANGES:
            patch.setattr(os, name, counted(getattr(os, name)))
        patch.setattr(os, "open", opened)
        try:
            action()
        except Killed:
            return True
    return False
