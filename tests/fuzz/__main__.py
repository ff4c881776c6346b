"""Reads malformed files with every reader, in a process that may take 1 GiB of memory and 5 s a file and start nothing.

Prints a line a reader, and how to make each failure again. Status 1: there were failures.
"""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec

from .campaign import describe, fuzz, table
from .readers import READERS


def main() -> int:
    """Reads the flags, runs the readers one after the other."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="of the processor, for all readers together (default: %(default)g)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the first input of each reader (default: %(default)s)")
    parser.add_argument("--reader", choices=READERS, action="append", help="this one alone; may be given several times")
    parser.add_argument("--inputs", type=int, help="of each reader, at most; without --seconds, however long they take")
    flags = parser.parse_args()
    names = flags.reader or [name for name, reader in READERS.items() if not reader.needs or find_spec(reader.needs)]
    without_end = flags.inputs is not None and "--seconds" not in " ".join(sys.argv)
    share = 1e9 if without_end else flags.seconds / len(names)
    outcomes = []
    for name in names:
        outcomes.append(fuzz(name, seed=flags.seed, inputs=flags.inputs or 10**9, seconds=share))
        if outcomes[-1].failures:
            print(describe(outcomes[-1]), flush=True)
    print(table(outcomes))
    return 1 if any(outcome.failures for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
