"""The processes of a run meet, or end with one line that says why not; each is a process of its own."""

import contextlib
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest
from command_runner import assert_one_error, start

from mocme_jax.errors import UserError
from mocme_jax.parallel import meeting
from mocme_jax.parallel.processes import joined, met


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def train(folder, port, process, *flags, host="127.0.0.1", processes=2, seconds=2.5) -> subprocess.Popen:
    address = [f"--config.parallel.coordinator={host}:{port}", f"--config.parallel.join_seconds={seconds}"]
    numbers = [f"--config.parallel.processes={processes}", f"--config.parallel.process={process}"]
    return start("train", *address, *numbers, *flags, folder=folder)


def assert_refused(process: subprocess.Popen, *words: str) -> None:
    printed, errors = process.communicate(timeout=60)
    assert_one_error(process.returncode, errors, *words)
    assert printed == ""


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
    process = train(tmp_path, free_port(), 1)
    assert_refused(
        process, "process 0 does not answer (Connection refused)", "start process 0", "parallel.join_seconds"
    )
    assert_refused(
        train(tmp_path, 9, 1, host="nowhere.invalid", seconds=0.1), "nowhere.invalid:9", "process 0 does not answer"
    )


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
    port = free_port()
    processes = [train(tmp_path, port, number, processes=4, seconds=4) for number in (0, 2)]
    for process in processes:
        assert_refused(process, "of the 4 processes of the run, these did not join", ": 1, 3")


@pytest.mark.slow
def test_other_flags_another_folder_and_a_number_that_is_taken(tmp_path):
    port = free_port()
    first = train(tmp_path, port, 0, processes=3, seconds=8)
    second = train(tmp_path, port, 1, processes=3, seconds=8)
    time.sleep(2)
    assert_refused(train(tmp_path, port, 2, "--config.model.width=8", processes=3, seconds=8), "a run with other flags")
    assert_refused(train(tmp_path, port, 2, "--workdir=elsewhere", processes=3, seconds=8), "a run with other flags")
    assert_refused(train(tmp_path, port, 1, processes=3, seconds=8), "another process has joined as process 1")
    assert_refused(first, "did not join", ": 2")
    assert_refused(second, "did not join", ": 2")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_processes_wait(number, tmp_path):
    """Before there is anything to save; the others go on waiting for the one that has left."""
    port = free_port()
    first, second = (train(tmp_path, port, process, processes=3, seconds=8) for process in (0, 1))
    time.sleep(2)
    second.send_signal(number)
    printed, errors = second.communicate(timeout=60)
    line = "stopped before training began; rerun the same command to start it\n"
    assert (second.returncode, printed, errors) == (75, line, "")
    assert_refused(first, "did not join", ": 1, 2")


def all_met(count: int, seconds: float = 20.0, run: str = "run") -> tuple[list, int]:
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


def test_strangers_do_not_keep_a_run_from_meeting():
    port, found = free_port(), []
    arguments = dict(seconds=20.0, run="run")
    threads = [
        threading.Thread(target=lambda n=n: found.append(meeting.meet(f"127.0.0.1:{port}", 3, n, **arguments)))
        for n in range(3)
    ]
    threads[0].start()
    for sent in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"",
        b"mocme_jax join",
        b"mocme_jax join x run\n",
        "mocme_jax join ² run\n".encode(),
        b"mocme_jax join 7 run\n",
    ):
        for _ in range(50):
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)) as visitor:
                visitor.sendall(sent)
                break
            time.sleep(0.1)
    # One that joined and has ended may be started again.
    with socket.create_connection(("127.0.0.1", port)) as gone:
        gone.sendall(b"mocme_jax join 1 run\n")
        assert gone.recv(100) == b"mocme_jax wait\n"
    time.sleep(1.5)
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == ["", "", f"127.0.0.1:{port}"]


def test_silent_strangers_delay_nobody():
    port, found = free_port(), []
    threads = [
        threading.Thread(
            target=lambda n=n: found.append(meeting.meet(f"127.0.0.1:{port}", 2, n, seconds=6.0, run="run"))
        )
        for n in range(2)
    ]
    threads[0].start()
    with contextlib.ExitStack() as open_now:
        for count in range(30):
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    visitor = open_now.enter_context(socket.create_connection(("127.0.0.1", port)))
                    break
            visitor.sendall(b"mocme_jax join 1"[:count])
        threads[1].start()
        for thread in threads:
            thread.join()
    assert sorted(found) == ["", f"127.0.0.1:{port}"]


def test_many_missing_processes_are_counted():
    """In a line that those who came can read."""
    port, found = free_port(), []

    def one(process: int) -> None:
        with pytest.raises(UserError, match=r"did not join at .*: 2, 3, 4, .*, 11 and 1988 more") as raised:
            meeting.meet(f"127.0.0.1:{port}", 2000, process, seconds=1.5, run="run")
        found.append(str(raised.value))

    threads = [threading.Thread(target=one, args=(process,)) for process in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2


def test_what_is_awaited_is_told(monkeypatch, capsys):
    monkeypatch.setattr(meeting, "_TELL", 0.3)
    with pytest.raises(UserError, match="did not join"):
        meeting.meet(f"127.0.0.1:{free_port()}", 3, 0, seconds=2.5, run="run")
    assert re.search(r"waiting at 127.0.0.1:\d+ for process 1, 2 \(1 of 2 s\)\n", capsys.readouterr().out)
    with pytest.raises(UserError, match="does not answer"):
        meeting.meet(f"127.0.0.1:{free_port()}", 3, 2, seconds=1.5, run="run")
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


def test_a_name_may_be_published_late(monkeypatch):
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
    auto = ["--config.parallel.coordinator=auto", "--config.parallel.join_seconds=1.5"]
    assert_refused(start("train", *auto, folder=tmp_path), "no SLURM, TPU pod, Kubernetes or MPI was found here")
    for name, value in (("JOB_ID", "7"), ("PROCID", "1"), ("LOCALID", "0"), ("STEP_NODELIST", "localhost,b")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SLURM_NTASKS", "two")
    assert_refused(start("train", *auto, folder=tmp_path), "the cluster cannot be asked (ValueError: invalid literal")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    # JAX takes the port from the number of the job.
    assert_refused(
        start("train", *auto, folder=tmp_path), f"localhost:{7 + 65535 - 2**12 + 1}: process 0 does not answer"
    )
