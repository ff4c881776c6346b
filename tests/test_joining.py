"""The processes of a run meet, or end with one line that says why not.

Where the outcome depends on who came in time, the time is up when the test says so.
"""

import contextlib
import itertools
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from command_runner import assert_one_error, environment, start

from mocme_jax.errors import UserError
from mocme_jax.parallel import meeting
from mocme_jax.parallel.processes import joined, met


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def flags_of(port, process, *flags, host="127.0.0.1", processes=2, seconds=1.0) -> list[str]:
    address = [f"--config.parallel.coordinator={host}:{port}", f"--config.parallel.join_seconds={seconds}"]
    return [*address, f"--config.parallel.processes={processes}", f"--config.parallel.process={process}", *flags]


def train(folder, *args, **kwargs) -> subprocess.Popen:
    return start("train", *flags_of(*args, **kwargs), folder=folder)


def assert_refused(process: subprocess.Popen, *words: str) -> None:
    printed, errors = process.communicate(timeout=120)
    assert_one_error(process.returncode, errors, *words)
    # All that a process may print before is what it waits for.
    assert all(line.startswith("waiting ") for line in printed.splitlines()), printed


# Trains, but its time to meet ends when a certain file exists, and it prints at each turn what it waits for.
PATIENT = """
import sys
from pathlib import Path
from mocme_jax.command_line import run
from mocme_jax.parallel import meeting
from mocme_jax.train import main
over = Path(sys.argv.pop(1))
meeting._TELL, left = 0.0, meeting._Clock.left
meeting._Clock.left = lambda clock: 0.0 if over.exists() else min(left(clock), 0.2)
run(main)
"""


class Gathering:
    """Process 0 of a run of three, or more, which waits for the others until ``end``."""

    def __init__(self, folder: Path, processes: int = 3):
        self.folder, self.processes, self.port = folder, processes, free_port()
        flags = flags_of(self.port, 0, processes=processes, seconds=120)
        command = [sys.executable, "-c", PATIENT, str(folder / "over"), *flags]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, cwd=folder, env=environment(), **pipes)

    def train(self, process: int, *flags: str) -> subprocess.Popen:
        """Starts another process."""
        return train(self.folder, self.port, process, *flags, processes=self.processes, seconds=120)

    def wait_for(self, missing: str) -> None:
        """Returns when these are the processes that it waits for."""
        line = next((line for line in self.process.stdout if f"for process {missing} (" in line), None)
        assert line, self.process.stderr.read()

    def end(self) -> subprocess.Popen:
        """Lets the time to meet be up."""
        (self.folder / "over").touch()
        return self.process


@contextlib.contextmanager
def stranger(answer: bytes) -> Iterator[int]:
    """A program that answers every connection so, and keeps it open; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as open_now:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection = open_now.enter_context(listener.accept()[0])
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


@pytest.mark.slow
def test_nobody_answers(tmp_path):
    words = "process 0 does not answer (Connection refused)", "start process 0", "parallel.join_seconds"
    elsewhere = train(tmp_path, 9, 1, host="nowhere.invalid", seconds=0.1)
    assert_refused(train(tmp_path, free_port(), 1), *words)
    assert_refused(elsewhere, "nowhere.invalid:9", "process 0 does not answer")


@pytest.mark.slow
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\0\6\4\0\0\0\0\0", b"m" * 10_000])
def test_another_program_has_the_port(answer, tmp_path):
    with stranger(answer) as port:
        processes = [train(tmp_path, port, number) for number in (0, 1)]
        assert_refused(processes[0], f"127.0.0.1:{port}: process 0 cannot listen there", "choose another one")
        assert_refused(processes[1], "what answers there is not process 0 of a run")


@pytest.mark.slow
def test_an_address_of_another_machine(tmp_path):
    # Of a block that is kept for documentation.
    assert_refused(train(tmp_path, 7000, 0, host="192.0.2.1"), "it is not an address of this machine")


@pytest.mark.slow
def test_missing_processes_are_named_by_all_that_came(tmp_path):
    first = Gathering(tmp_path, processes=4)
    third = first.train(2)
    first.wait_for("1, 3")
    for process in (first.end(), third):
        assert_refused(process, "of the 4 processes of the run, these did not join", ": 1, 3")


@pytest.mark.slow
def test_other_flags_another_folder_and_a_number_that_is_taken(tmp_path):
    first = Gathering(tmp_path)
    second = first.train(1)
    first.wait_for("2")
    others = [first.train(2, "--config.model.width=8"), first.train(2, "--workdir=elsewhere"), first.train(1)]
    for process, word in zip(others, (*["a run with other flags"] * 2, "another process has joined as"), strict=True):
        assert_refused(process, word)
    for process in (first.end(), second):
        assert_refused(process, "did not join", ": 2")


@pytest.mark.slow
def test_a_signal_while_processes_wait(tmp_path):
    """Before there is anything to save; the others go on waiting for the one that has left, which may come again."""
    first = Gathering(tmp_path)
    for number in (signal.SIGTERM, signal.SIGINT):
        second = first.train(1)
        first.wait_for("2")
        second.send_signal(number)
        printed, errors = second.communicate(timeout=120)
        line = "stopped before training began; rerun the same command to start it\n"
        assert (second.returncode, printed, errors) == (75, line, "")
        first.wait_for("1, 2")
    assert_refused(first.end(), "did not join", ": 1, 2")


@pytest.fixture
def lines(monkeypatch) -> list[str]:
    """What those who wait in this process tell, at each turn instead of every ten seconds."""
    told: list[str] = []
    monkeypatch.setattr(meeting, "_TELL", 0.0)
    monkeypatch.setattr(meeting, "print", lambda line, **_: told.append(line), raising=False)
    return told


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def made_up_time(monkeypatch) -> None:
    """A clock that advances by a quarter of a second at each reading, and by the length of each sleep."""
    passed = itertools.count(0, 0.25)
    slept = [0.0]
    clock = SimpleNamespace(monotonic=lambda: next(passed) + sum(slept), sleep=slept.append)
    monkeypatch.setattr(meeting, "time", clock)


def all_met(count: int, seconds: float = 60.0, run: str = "run") -> tuple[list, int]:
    """What `meet` gives or raises in each of the processes, here threads; the last comes a little later."""
    port, found = free_port(), [None] * count

    def one(process: int) -> None:
        try:
            found[process] = meeting.meet(f"127.0.0.1:{port}", count, process, seconds=seconds, run=run)
        except UserError as error:
            found[process] = error

    threads = [threading.Thread(target=one, args=(process,)) for process in range(count)]
    for thread in threads[:-1]:
        thread.start()
    time.sleep(0.3)
    threads[-1].start()
    for thread in threads:
        thread.join()
    return found, port


def test_all_meet_and_the_port_is_free_again_at_the_address_alone():
    found, port = all_met(12)
    assert found == [f"127.0.0.1:{port}"] + [""] * 11
    with socket.socket() as next_one:
        # Without SO_REUSEADDR: nothing of the meeting holds it.
        next_one.bind(("127.0.0.1", port))
    assert all_met(1)[0][0].startswith("127.0.0.1:")


def test_strangers_do_not_keep_a_run_from_meeting(lines):
    port, found = free_port(), []
    arguments = dict(seconds=60.0, run="run")
    threads = [
        threading.Thread(target=lambda n=n: found.append(meeting.meet(f"127.0.0.1:{port}", 3, n, **arguments)))
        for n in range(3)
    ]
    threads[0].start()
    wait_until(lambda: lines)
    for sent in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"",
        b"mocme_jax join",
        b"mocme_jax join x run\n",
        "mocme_jax join ² run\n".encode(),
        b"mocme_jax join 7 run\n",
    ):
        with socket.create_connection(("127.0.0.1", port)) as visitor:
            visitor.sendall(sent)
    # One that joined and has ended may be started again.
    with socket.create_connection(("127.0.0.1", port)) as gone:
        gone.sendall(b"mocme_jax join 1 run\n")
        assert gone.recv(100) == b"mocme_jax wait\n"
        wait_until(lambda: "for process 2 (" in lines[-1])
    wait_until(lambda: "for process 1, 2 (" in lines[-1])
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == ["", "", f"127.0.0.1:{port}"]


def test_silent_strangers_delay_nobody(lines, monkeypatch):
    monkeypatch.setattr(meeting, "_SILENCE", 1e6)
    port, found = free_port(), []
    threads = [
        threading.Thread(
            target=lambda n=n: found.append(meeting.meet(f"127.0.0.1:{port}", 2, n, seconds=60.0, run="run"))
        )
        for n in range(2)
    ]
    threads[0].start()
    wait_until(lambda: lines)
    with contextlib.ExitStack() as open_now:
        for count in range(30):
            visitor = open_now.enter_context(socket.create_connection(("127.0.0.1", port)))
            visitor.sendall(b"mocme_jax join 1"[:count])
        threads[1].start()
        for thread in threads:
            thread.join()
    assert sorted(found) == ["", f"127.0.0.1:{port}"]


def test_many_missing_processes_are_counted(lines, monkeypatch):
    """In a line that those who came can read."""
    port, found, over = free_port(), [], threading.Event()
    monkeypatch.setattr(meeting._Clock, "left", lambda clock: 0.0 if over.is_set() else 0.1)

    def one(process: int) -> None:
        with pytest.raises(UserError, match=r"did not join at .*: 2, 3, 4, .*, 11 and 1988 more") as raised:
            meeting.meet(f"127.0.0.1:{port}", 2000, process, seconds=60.0, run="run")
        found.append(str(raised.value))

    threads = [threading.Thread(target=one, args=(process,)) for process in (0, 1)]
    for thread in threads:
        thread.start()
    wait_until(lambda: any("for process 2, 3" in line for line in lines))
    over.set()
    for thread in threads:
        thread.join()
    assert len(found) == 2


def test_what_is_awaited_is_told(made_up_time, capsys, monkeypatch):
    monkeypatch.setattr(meeting, "_TELL", 1.0)
    with pytest.raises(UserError, match="did not join"):
        meeting.meet(f"127.0.0.1:{free_port()}", 3, 0, seconds=2.5, run="run")
    assert re.search(r"waiting at 127.0.0.1:\d+ for process 1, 2 \(1 of 2 s\)\n", capsys.readouterr().out)
    with pytest.raises(UserError, match="does not answer"):
        meeting.meet(f"127.0.0.1:{free_port()}", 3, 2, seconds=5.0, run="run")
    assert re.search(r"waiting for process 0 at 127.0.0.1:\d+: process 0 does not", capsys.readouterr().out)


def test_a_name_that_only_this_machine_reaches_is_no_reason_to_listen_there_alone(monkeypatch):
    own = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.1.1", 0))]
    for host, address in (("node7", "0.0.0.0"), ("localhost", "127.0.1.1"), ("127.0.1.1", "127.0.1.1")):
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: own)
        with meeting._listener(host, 0, meeting._Clock(1.0)) as listener:
            assert listener.getsockname()[0] == address


@pytest.mark.parametrize("address", ["here", "a:", ":1", "a:0", "a:65536", "a:b", "a..b:1", "x" * 64 + ":1"])
def test_what_is_no_address(address, monkeypatch):
    with pytest.raises(UserError, match="expected HOST:PORT, auto"):
        meeting.meet(address, 2, 0, seconds=1.0, run="run")
    monkeypatch.setenv("JAX_COORDINATOR_BIND_ADDRESS", address)
    with pytest.raises(UserError, match=r"JAX_COORDINATOR_BIND_ADDRESS .*: expected HOST:PORT"):
        meeting.meet("localhost:1", 2, 0, seconds=1.0, run="run")


def test_a_name_may_be_published_late(made_up_time, monkeypatch):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]
    answers = [socket.gaierror(-2, "Name or service not known"), found]

    def look_up(*_, **__):
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with meeting._listener("pod-0", 0, meeting._Clock(5.0)):
        pass
    answers[:] = [socket.gaierror(-2, "Name or service not known")]
    with pytest.raises(UserError, match=r"cannot listen there \(Name or service not known\); give an address"):
        meeting._listener("pod-0", 1, meeting._Clock(0.1))


def test_what_jax_is_told(monkeypatch):
    """By explicit addresses nothing is asked of SLURM, which would leave each process a single GPU."""
    told = []
    monkeypatch.setattr("jax.distributed.initialize", lambda **arguments: told.append(arguments))
    monkeypatch.setattr("jax.distributed.shutdown", lambda: told.append("end"))
    for name, value in (("JOB_ID", "7"), ("PROCID", "0"), ("LOCALID", "3"), ("STEP_NODELIST", "localhost")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SLURM_NTASKS", "1")
    explicit, port = f"127.0.0.1:{free_port()}", 7 + 65535 - 2**12 + 1
    for coordinator, devices in ((explicit, None), ("auto", [3])):
        with joined(met(coordinator, 1, 0, seconds=5.0, run="run")) as process:
            assert process == 0
        told.append(devices)
    first, _, _, second, _, _ = told
    assert told[1::3] == ["end", "end"]
    assert [one["cluster_detection_method"] for one in (first, second)] == ["deactivate"] * 2
    assert [one["local_device_ids"] for one in (first, second)] == [None, [3]]
    assert [one["coordinator_address"] for one in (first, second)] == [explicit, f"localhost:{port}"]
    assert first["coordinator_bind_address"] == explicit
    with joined(met(None, 1, 0, seconds=5.0, run="run")) as process:
        assert process == 0
    assert len(told) == 6


@pytest.mark.slow
def test_a_cluster_is_asked_and_what_goes_wrong_there_is_one_line(tmp_path, monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NODELIST", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    auto = ["train", "--config.parallel.coordinator=auto", "--config.parallel.join_seconds=1"]
    nowhere = start(*auto, folder=tmp_path)
    for name, value in (("JOB_ID", "7"), ("PROCID", "1"), ("LOCALID", "0"), ("STEP_NODELIST", "localhost,b")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SLURM_NTASKS", "two")
    malformed = start(*auto, folder=tmp_path)
    monkeypatch.setenv("SLURM_NTASKS", "2")
    alone = start(*auto, folder=tmp_path)
    assert_refused(nowhere, "no SLURM, TPU pod, Kubernetes or MPI was found here")
    assert_refused(malformed, "the cluster cannot be asked (ValueError: invalid literal")
    # JAX takes the port from the number of the job.
    assert_refused(alone, f"localhost:{7 + 65535 - 2**12 + 1}: process 0 does not answer")
