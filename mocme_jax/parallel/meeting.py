"""The meeting of a run's processes at the coordinator's address, before JAX is started.

JAX's own service waits for minutes without a word, and then ends the process with a trace of C++. If another program or
another run uses the port, it ends that way too, and may take the other run with it. So the processes first meet here
over plain TCP. Process 0 listens, the others connect and send one line each. When all are there, all go on.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import time
from collections.abc import Iterator

from mocme_jax.errors import UserError

# The first word of each line. A program that answers anything else is a stranger.
_WORD = b"mocme_jax"
_LONGEST_LINE = 1000
# Seconds between two lines that tell what is awaited, and how long a stranger may be silent.
_TELL, _SILENCE = 10.0, 10.0
# How many missing processes a line names.
_NAMED = 10


def meet(coordinator: str, count: int, process: int, *, seconds: float, run: str) -> str:
    """Wait until all processes of a run are there, and return the address on which the coordinator listens.

    Args:
      coordinator: HOST:PORT of process 0.
      count: the number of processes.
      process: the number of this process.
      seconds: the longest time to wait.
      run: what all processes of the run have in common, without spaces. Processes of another run are sent away.

    Raises:
      UserError: the address is malformed, cannot be used, or does not answer; or a process is missing.
    """
    host, port = _parts(coordinator, f"parallel.coordinator {coordinator!r}: expected HOST:PORT, auto, or nothing")
    if process >= count:
        raise UserError(f"parallel.process is {process}, but the {count} processes are numbered from 0")
    if process:
        _join(host, port, process, _Clock(seconds), run)
        return ""
    return _gather(host, port, count, _Clock(seconds), run)


def _parts(address: str, wrong: str) -> tuple[str, int]:
    """Split HOST:PORT; an IPv6 address may stand in brackets."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(wrong)
    try:
        # As Python does before it looks a name up.
        host.encode("idna")
    except UnicodeError as error:
        raise UserError(wrong) from error
    return host.strip("[]"), int(port)


class _Clock:
    """The time left, and a line every ten seconds."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self._start = self._told = time.monotonic()

    def left(self) -> float:
        return max(0.0, self._start + self.seconds - time.monotonic())

    def tell(self, line: str) -> None:
        now = time.monotonic()
        if now - self._told >= _TELL:
            self._told = now
            print(f"{line} ({now - self._start:.0f} of {self.seconds:.0f} s)", flush=True)


def _gather(host: str, port: int, count: int, clock: _Clock, run: str) -> str:
    """Process 0: wait for the others. No connection is waited for alone, so a silent one delays nobody."""
    here = f"{host}:{port}"
    joined: dict[int, socket.socket] = {}
    # What has come of the first line of each new connection, and until when the rest may come.
    new: dict[socket.socket, tuple[bytes, float]] = {}
    with _listener(host, port, clock) as listener, selectors.DefaultSelector() as all_open:
        address, port = listener.getsockname()[:2]
        listener.setblocking(False)
        all_open.register(listener, selectors.EVENT_READ)

        def close(connection: socket.socket) -> None:
            all_open.unregister(connection)
            new.pop(connection, None)
            connection.close()

        try:
            while missing := [str(number) for number in range(1, count) if number not in joined]:
                more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
                named = ", ".join(missing[:_NAMED]) + more
                if not clock.left():
                    line = f"of the {count} processes of the run, these did not join at {here}: {named}"
                    for connection in joined.values():
                        _send(connection, f"refused {line}")
                    raise UserError(f"{line}; start them all, or raise parallel.join_seconds")
                clock.tell(f"waiting at {here} for process {named}")
                ready: list = [key.fileobj for key, _ in all_open.select(min(1.0, clock.left() + 0.01))]
                for gone in [number for number, connection in joined.items() if connection in ready]:
                    # A process that has joined sends nothing more, so it has ended.
                    close(joined.pop(gone))
                for connection in [connection for connection in ready if connection in new]:
                    received, (before, until) = _received(connection), new[connection]
                    read = before + received
                    if received and _may_be_line(read):
                        new[connection] = read, until
                        continue
                    number = _admitted(connection, read, count, joined, run)
                    if number is None:
                        close(connection)
                    else:
                        del new[connection]
                        joined[number] = connection
                for connection in [one for one, (_, until) in new.items() if until < time.monotonic()]:
                    close(connection)
                if listener in ready and (visitor := _accepted(listener)):
                    new[visitor] = b"", time.monotonic() + _SILENCE
                    all_open.register(visitor, selectors.EVENT_READ)
            for connection in joined.values():
                _send(connection, "go")
            # The side that closes first keeps the port for a minute.
            for connection in joined.values():
                connection.settimeout(5.0)
                _received(connection)
        finally:
            for connection in (*joined.values(), *new):
                connection.close()
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _accepted(listener: socket.socket) -> socket.socket | None:
    try:
        connection = listener.accept()[0]
    # The other side has gone, or there are too many open files.
    except OSError:
        return None
    connection.setblocking(False)
    return connection


def _received(connection: socket.socket) -> bytes:
    """Read what has come; nothing if the other side has left."""
    try:
        return connection.recv(_LONGEST_LINE)
    except OSError:
        return b""


def _listener(host: str, port: int, clock: _Clock) -> socket.socket:
    """Listen at this address alone. ``JAX_COORDINATOR_BIND_ADDRESS`` names another one, as for JAX."""
    if own := os.environ.get("JAX_COORDINATOR_BIND_ADDRESS"):
        host, port = _parts(own, f"JAX_COORDINATOR_BIND_ADDRESS {own!r}: expected HOST:PORT")
    try:
        family, address = _resolved(host, port, clock)
        # Some systems give their own name an address that only they can reach.
        if host not in ("localhost", address[0]) and (address[0].startswith("127.") or address[0] == "::1"):
            address = ("::" if family == socket.AF_INET6 else "0.0.0.0", port)
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(1024)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        reasons = {
            errno.EADDRINUSE: "another program or run uses this port; choose another one",
            errno.EADDRNOTAVAIL: "it is not an address of this machine; give one of the machine of process 0",
        }
        reason = reasons.get(error.errno or 0, "give an address of the machine of process 0")
        raise UserError(
            f"parallel.coordinator {host}:{port}: process 0 cannot listen there ({error.strerror}); {reason}"
        ) from error
    return listener


def _resolved(host: str, port: int, clock: _Clock) -> tuple[socket.AddressFamily, tuple]:
    """Look the name up. A cluster may publish it only a while after the process has started."""
    while True:
        try:
            family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            return family, address
        except socket.gaierror as error:
            if not clock.left():
                raise
            clock.tell(f"waiting for an address of {host} ({error.strerror})")
            time.sleep(min(1.0, clock.left()))


def _admitted(
    connection: socket.socket, read: bytes, count: int, joined: dict[int, socket.socket], run: str
) -> int | None:
    """Return the number of a process of this run that connects, or None after an answer to anyone else."""
    line, end, _ = read.partition(b"\n")
    words = line.split(b" ")
    if not end or len(words) != 4 or words[:2] != [_WORD, b"join"] or not words[2].isdigit():
        return None
    number = int(words[2])
    if words[3] != run.encode():
        _send(connection, "refused it belongs to a run with other flags; give all processes of a run the same flags")
    elif not 0 < number < count:
        _send(connection, f"refused the run has {count} processes, numbered from 0")
    elif number in joined:
        _send(connection, f"refused another process has joined as process {number}")
    else:
        _send(connection, "wait")
        return number
    return None


def _join(host: str, port: int, process: int, clock: _Clock, run: str) -> None:
    """Any other process: connect to process 0, and wait for its word."""
    place = f"parallel.coordinator {host}:{port}"
    while True:
        try:
            connection = socket.create_connection((host, port), timeout=max(0.1, min(5.0, clock.left())))
        except OSError as error:
            reason = f"process 0 does not answer ({error.strerror or error})"
        else:
            with connection:
                if _attended(connection, process, clock, run, place):
                    return
            reason = "what answers there is not process 0 of a run"
        if not clock.left():
            raise UserError(f"{place}: {reason}; start process 0, correct the address, or raise parallel.join_seconds")
        clock.tell(f"waiting for process 0 at {host}:{port}: {reason}")
        time.sleep(min(1.0, clock.left()))


def _attended(connection: socket.socket, process: int, clock: _Clock, run: str, place: str) -> bool:
    """Return whether process 0 was there and all have come; False if it is a stranger, or left."""
    _send(connection, f"join {process} {run}")
    connection.settimeout(min(_SILENCE, clock.left() + 1.0))
    for line in _lines(connection):
        word, _, rest = line.partition(" ")
        if word == "go":
            return True
        if word == "refused":
            raise UserError(f"{place}: process {process} cannot join: {rest}")
        if word != "wait":
            return False
        # Process 0 gives up within its own time, which is as long, and says so.
        connection.settimeout(clock.seconds + 5.0)
    return False


def _send(connection: socket.socket, line: str) -> None:
    try:
        connection.sendall(_WORD + b" " + line.encode() + b"\n")
    except OSError:
        return


def _may_be_line(read: bytes) -> bool:
    """Return whether this is the start of a line of ours without its end."""
    start = _WORD + b" "
    return b"\n" not in read and len(read) <= _LONGEST_LINE and start.startswith(read[: len(start)])


def _lines(connection: socket.socket) -> Iterator[str]:
    """Yield lines without their first word, until one is missing, late, or a stranger's."""
    read = b""
    while True:
        while _may_be_line(read):
            if not (more := _received(connection)):
                return
            read += more
        line, end, read = read.partition(b"\n")
        if not end or not line.startswith(_WORD + b" "):
            return
        yield line[len(_WORD) + 1 :].decode(errors="replace")
