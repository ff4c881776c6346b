"""Signals: a line and a status of its own at the first, at once at the second, whatever the program is at."""

import signal
import subprocess
import sys
import threading
import time

import pytest
from command_runner import environment

from mocme_jax.training.preemption import Preemption, Stopped

# What the process is at when the first signal comes, and how it goes on from there.
PROGRAM = """
import signal, sys, time
from mocme_jax.training.preemption import Preemption, Stopped

signal.signal(signal.SIGINT, signal.default_int_handler)
with Preemption({status}, alone={alone}) as preemption:
    {phase}
    print("ready", flush=True)
    while not preemption.requested:
        time.sleep(0.01)
    sys.stdout.write("asked\\n")
    sys.stdout.flush()
    {after}
    raise Stopped("saved; the same command goes on")
print("and on")
sys.exit(preemption.status)
"""
# One call of C that holds on to the main thread for minutes, lets other threads run, and no signal interrupts it.
LONG_CALL = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"

# The rest of a step, in which a line that comes at once has come.
A_STEP = "time.sleep(0.5)"


def start(phase="preemption.something_to_save()", after="pass", alone=True, status=75) -> subprocess.Popen:
    text = PROGRAM.format(phase=phase, after=after, alone=alone, status=status)
    command = [sys.executable, "-c", text]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    return process


# At once, from the thread that sees to signals; the program's own lines may be sooner.
STOPPING = "stopping after this step; a second signal stops it at once"


def told(process: subprocess.Popen) -> tuple[int, list[str], str]:
    """Status, lines without the one that is told at once, and errors."""
    status, printed, errors = end(process)
    lines = printed.splitlines()
    lines.remove(STOPPING)
    return status, lines, errors


def end(process: subprocess.Popen) -> tuple[int, str, str]:
    printed, errors = process.communicate(timeout=30)
    return process.returncode, printed, errors


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 3), (signal.SIGUSR1, 0)])
def test_what_has_something_to_save_is_asked_and_goes_on_to_its_end(number, status):
    process = start(after=A_STEP, status=status)
    process.send_signal(number)
    # The line of Stopped, and then the program goes on behind the block.
    assert told(process) == (status, ["asked", "saved; the same command goes on", "and on"], "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_what_has_nothing_to_save_ends_at_once_with_its_line(number):
    # On a busy machine a main thread that looks may be sooner than the one that ends the process.
    process = start(phase='preemption.nothing_to_save("nothing lost"); print("ready", flush=True); time.sleep(60)')
    process.send_signal(number)
    assert end(process) == (75, "nothing lost\n", "")


def test_nothing_to_save_is_left_in_the_middle_of_a_long_call():
    process = start(phase=f'preemption.nothing_to_save("nothing lost"); print("ready", flush=True); {LONG_CALL}')
    process.send_signal(signal.SIGTERM)
    assert end(process) == (75, "nothing lost\n", "")


def test_other_processes_are_not_left_alone():
    """There must be no leaving before all have agreed."""
    process = start(phase='preemption.nothing_to_save("not this")', after=A_STEP, alone=False)
    process.send_signal(signal.SIGTERM)
    assert told(process) == (75, ["asked", "saved; the same command goes on", "and on"], "")


@pytest.mark.parametrize(("first", "status"), [(signal.SIGTERM, 130), (signal.SIGINT, 143), (signal.SIGUSR1, 143)])
def test_a_second_signal_ends_it_in_the_middle_of_a_long_call(first, status):
    second = signal.Signals(status - 128)
    process = start(after=LONG_CALL)
    process.send_signal(first)
    assert {process.stdout.readline(), process.stdout.readline()} == {"asked\n", f"{STOPPING}\n"}
    time.sleep(0.7)
    assert process.poll() is None
    process.send_signal(second)
    assert end(process) == (status, "", "")


def test_an_echo_of_the_first_is_no_second():
    process = start(after="time.sleep(1)")
    process.send_signal(signal.SIGINT)
    assert {process.stdout.readline(), process.stdout.readline()} == {"asked\n", f"{STOPPING}\n"}
    process.send_signal(signal.SIGTERM)
    assert end(process)[:2] == (75, "saved; the same command goes on\nand on\n")


def test_handlers_are_put_back_and_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        standing = signal.getsignal(signal.SIGTERM)
        with Preemption() as preemption:
            preemption.something_to_save()
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            signal.raise_signal(signal.SIGINT)
            assert not preemption.requested
            signal.raise_signal(signal.SIGTERM)
            assert preemption.requested
            with pytest.raises(Stopped, match="too late"):
                preemption.nothing_to_save("too late")
        assert preemption.status == 0
        assert signal.getsignal(signal.SIGTERM) is standing
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_threads_take_no_signals_and_other_errors_pass():
    found = []

    def work():
        with Preemption() as preemption:
            found.append(preemption.requested)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]
    assert signal.getsignal(signal.SIGTERM) is before
    with pytest.raises(KeyError), Preemption():
        raise KeyError
