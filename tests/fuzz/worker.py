"""The guarded process that reads malformed files: memory, time, what it opens and what it starts are watched.

``python -m tests.fuzz.worker READER SEED INPUTS SECONDS FOLDER`` is started by the campaign, which reads what it leaves
in FOLDER: ``state``, numbers that survive its death, and ``failures``, a JSON object a line.
"""

from __future__ import annotations

import faulthandler
import json
import mmap
import os
import shutil
import signal
import struct
import sys
import time
import traceback
import warnings
from pathlib import Path

from mocme_jax.errors import UserError

from .readers import Inputs

HANG = 5.0
"""Seconds of the processor's time that one file may take; others may have the machine meanwhile."""

BLOCKED = 60.0
"""Seconds of anybody's time: for what waits and does nothing."""

MEMORY = 1 << 30
ROOT = os.path.realpath(Path(__file__).resolve().parents[2])
LONGEST_MESSAGE = 1000
# Seed under way, inputs done, refused, accepted, bytes at most above the start, processor's seconds of the longest.
STATE = struct.Struct("<qqqqqd")
FOREIGN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "pickle.find_class",
    "exec",
    "socket.connect",
)


class Watch:
    """What the process does while a reader reads, by Python's audit events."""

    def __init__(self, folder: Path):
        self.folder = os.path.realpath(folder)
        self.own = tuple({os.path.realpath(place) for place in (*sys.path, sys.prefix, sys.base_prefix) if place})
        self.seen: list[str] = []
        self.on = False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple) -> None:
        if not self.on:
            return
        if event == "open":
            path, mode, flags = arguments
            if isinstance(path, int):
                return
            # Links may lead anywhere; names in a file may not.
            path = os.path.abspath(os.fsdecode(path))
            writes = (isinstance(mode, str) and set(mode) & set("wax+")) or (flags or 0) & (os.O_WRONLY | os.O_RDWR)
            if (
                path != os.devnull
                and not path.startswith(self.folder + os.sep)
                and (writes or not path.startswith(self.own))
            ):
                self.seen.append(f"opened {path}")
        elif event.startswith(FOREIGN) and not (event == "exec" and self._is_own(arguments[0])):
            self.seen.append(f"{event} {str(arguments)[:80]}")

    def _is_own(self, code: object) -> bool:
        """Whether code is the program's: modules are run when they are first needed, by their own loader."""
        # The frames: this function's, the hook's, and that of who runs it.
        if "importlib" in repr(sys._getframe(2).f_code):
            return True
        # As is the default config, by which flags are told.
        return os.path.realpath(getattr(code, "co_filename", "")).startswith(os.path.join(ROOT, "configs"))


def main(name: str, first: int, inputs: int, seconds: float, folder: Path) -> None:
    """Reads inputs until there are so many, or so long a time has passed."""
    case, canary = folder / "case", folder / "canary"
    generator = Inputs(name, canary)
    case.mkdir(exist_ok=True)
    # Imports what is imported when it is needed, which is no input's fault.
    for files in generator.seeds:
        for file, data in files.items():
            (case / file).parent.mkdir(parents=True, exist_ok=True)
            (case / file).write_bytes(data)
        generator.reader.check(generator.reader.read(case))
        shutil.rmtree(case)
        case.mkdir()
    generator.make_bombs()
    told = os.fdopen(os.dup(2), "w")
    noise = os.open(folder / "noise", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.dup2(noise, 2)
    sys.stderr = told
    # Chained: it tells where it was, and the signal ends the process.
    faulthandler.register(signal.SIGPROF, file=told, chain=True)
    watch = Watch(folder)
    with open(folder / "state", "r+b") as file:
        state = mmap.mmap(file.fileno(), STATE.size)
    failures = open(folder / "failures", "a", encoding="utf-8")  # noqa: SIM115
    before = limit_memory()

    _, done, refused, accepted, peak, longest = STATE.unpack(state)
    end = time.process_time() + seconds
    for seed in range(first, first + inputs):
        if time.process_time() > end:
            break
        state[:] = STATE.pack(seed, done, refused, accepted, peak, longest)
        generator.write(seed, case)
        # Both in C, so that they come whatever the interpreter is busy with.
        faulthandler.dump_traceback_later(BLOCKED, exit=True, file=told)
        signal.setitimer(signal.ITIMER_PROF, HANG)
        fault, start = "", time.process_time()
        watch.on = True
        try:
            with warnings.catch_warnings():
                # What Python would print beside the one line of the error.
                warnings.simplefilter("error")
                result = generator.reader.read(case)
        except UserError as error:
            refused += 1
            watch.on = False
            fault = fault_of_message(str(error), case)
        except BaseException as error:
            watch.on = False
            fault = "".join(traceback.format_exception(error)[-3:])
        else:
            accepted += 1
            watch.on = False
            try:
                generator.reader.check(result)
            except Exception as error:
                fault = "accepted, but wrong: " + "".join(traceback.format_exception(error)[-2:])
        watch.on = False
        longest = max(longest, time.process_time() - start)
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()
        result = None
        done += 1
        if watch.seen:
            fault = "; ".join(watch.seen)
            watch.seen.clear()
        if canary.exists():
            fault = "code was run"
            canary.rmdir() if canary.is_dir() else canary.unlink()
        if os.fstat(noise).st_size:
            fault = fault or "printed: " + os.pread(noise, 300, 0).decode("utf-8", "replace")
            os.ftruncate(noise, 0)
            os.lseek(noise, 0, os.SEEK_SET)
        if fault:
            print(json.dumps({"seed": seed, "fault": fault}), file=failures, flush=True)
        if done % 50 == 0:
            peak = max(peak, resident("VmHWM") - before)
    peak = max(peak, resident("VmHWM") - before)
    state[:] = STATE.pack(-1, done, refused, accepted, peak, longest)


def fault_of_message(message: str, folder: Path) -> str:
    """What is wrong with the one line that a user sees; nothing for a line as it should be."""
    if not message.isprintable():
        return f"a message that is not one printable line: {message!r}"[:500]
    if str(folder) not in message:
        return f"a message that names no file: {message}"[:500]
    return f"a message of {len(message)} characters" if len(message) > LONGEST_MESSAGE else ""


def limit_memory() -> int:
    """Lets the process have MEMORY more than now, where the system can do so; returns the bytes it holds now."""
    import resource

    with open("/proc/self/clear_refs", "w") as file:
        # The peak so far, of making the inputs, is nobody's.
        file.write("5")
    size = resident("VmSize") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.getrlimit(resource.RLIMIT_AS)[1]))
    return resident("VmRSS")


def resident(field: str) -> int:
    """Bytes of a field of this process's status."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(field + ":"))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), Path(sys.argv[5]))
