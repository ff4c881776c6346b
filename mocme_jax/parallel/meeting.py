"""The meeting of a run's processes at the coordinator's address, before JAX is started.

JAX's own service waits for minutes without a word, and then ends the process with a trace of C++. If another program or
another run uses the port, it ends that way too, and may take the other run with it. So the processes first meet here
over plain TCP. Process 0 listens, the others connect and send one line each. When all are there, all go on.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator

from mocme_jax.errors import UserError

# The first word of each line. A program that answers anything else is a stranger.
_WORD = b"mocme_jax"
_LONGEST_LINE = 200
# Seconds between two lines that tell what is awaited, and how long a stranger may be silent.
_TELL, _SILENCE = 10.0, 10.0


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
    """Process 0: wait for the others."""
    here = f"{host}:{port}"
    with _listener(host, port, clock) as listener:
        address, port = listener.getsockname()[:2]
        joined: dict[int, socket.socket] = {}
        try:
            while missing := [str(number) for number in range(1, count) if number not in joined]:
                if not clock.left():
                    line = f"of the {count} processes of the run, these did not join at {here}: {', '.join(missing)}"
                    for connection in joined.values():
                        _send(connection, f"refused {line}")
                    raise UserError(f"{line}; start them all, or raise parallel.join_seconds")
                clock.tell(f"waiting at {here} for process {', '.join(missing)}")
                for number in [number for number, connection in joined.items() if _has_left(connection)]:
                    joined.pop(number).close()
                listener.settimeout(min(1.0, clock.left() + 0.01))
                try:
                    connection = listener.accept()[0]
                except TimeoutError:
                    continue
                admitted = _admitted(connection, count, joined, run)
                if admitted is None:
                    connection.close()
                else:
                    joined[admitted] = connection
            for connection in joined.values():
                _send(connection, "go")
            # The side that closes first keeps the port for a minute.
            for connection in joined.values():
                connection.settimeout(5.0)
                try:
                    connection.recv(1)
                except OSError:
                    continue
        finally:
            for connection in joined.values():
                connection.close()
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


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


def _admitted(connection: socket.socket, count: int, joined: dict[int, socket.socket], run: str) -> int | None:
    """Return the number of a process of this run that connects, or None after an answer to anyone else."""
    # Short, because the others wait meanwhile.
    connection.settimeout(2.0)
    words = next(_lines(connection), "").split(" ")
    if len(words) != 3 or words[0] != "join" or not words[1].isdigit():
        return None
    number = int(words[1])
    if words[2] != run:
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


def _has_left(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return not connection.recv(1)
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        connection.setblocking(True)


def _lines(connection: socket.socket) -> Iterator[str]:
    """Yield lines without their first word, until one is missing, late, or a stranger's."""
    read = b""
    while len(read) <= 2 * _LONGEST_LINE:
        line, end, rest = read.partition(b"\n")
        if end:
            if not line.startswith(_WORD + b" "):
                return
            yield line[len(_WORD) + 1 :].decode(errors="replace")
            read = rest
            continue
        if not (_WORD + b" ").startswith(read[: len(_WORD) + 1]):
            return
        try:
            more = connection.recv(_LONGEST_LINE)
        except OSError:
            return
        if not more:
            return
        read += more
