"""Signals: a line and a status of its own at the first, at once at the second, whatever the program is at."""

import signal
import subprocess
import sys
import threading
import time

import pytest
from command_runner import environment

from mocme_jax.training import preemption as module
from mocme_jax.training.preemption import Preemption, Stopped

# What the process is at when the first signal comes, and how it goes on from there.
PROGRAM = """
import signal, sys, time
from mocme_jax.training import preemption as module
from mocme_jax.training.preemption import Preemption, Stopped

module._ECHO_SECONDS = {echo}
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

# The rest of a step, which lasts until the test has read what it waits for.
A_STEP = "sys.stdin.readline()"


def start(
    phase="preemption.something_to_save()", after="pass", alone=True, status=75, echo=module._ECHO_SECONDS
) -> subprocess.Popen:
    text = PROGRAM.format(phase=phase, after=after, alone=alone, status=status, echo=echo)
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen([sys.executable, "-c", text], env=environment(), **pipes, text=True)
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    return process


def assert_asked(process: subprocess.Popen) -> None:
    """Reads the program's own line, and the one that the thread that sees to signals prints at once."""
    lines = {process.stdout.readline(), process.stdout.readline()}
    assert lines == {"asked\n", "stopping after this step; a second signal stops it at once\n"}


def end(process: subprocess.Popen) -> tuple[int, str, str]:
    """Lets it go on; its status, what it printed then, and errors."""
    printed, errors = process.communicate("\n", timeout=60)
    return process.returncode, printed, errors


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 3), (signal.SIGUSR1, 0)])
def test_what_has_something_to_save_is_asked_and_goes_on_to_its_end(number, status):
    process = start(after=A_STEP, status=status)
    process.send_signal(number)
    assert_asked(process)
    # The line of Stopped, and then the program goes on behind the block.
    assert end(process) == (status, "saved; the same command goes on\nand on\n", "")


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
    assert_asked(process)
    assert end(process) == (75, "saved; the same command goes on\nand on\n", "")


@pytest.mark.parametrize(("first", "status"), [(signal.SIGTERM, 130), (signal.SIGINT, 143), (signal.SIGUSR1, 143)])
def test_a_second_signal_ends_it_in_the_middle_of_a_long_call(first, status):
    second = signal.Signals(status - 128)
    process = start(after=LONG_CALL)
    process.send_signal(first)
    assert_asked(process)
    time.sleep(module._ECHO_SECONDS + 0.1)
    assert process.poll() is None
    process.send_signal(second)
    assert end(process) == (status, "", "")


def test_an_echo_of_the_first_is_no_second():
    # A terminal and a script are not further apart; the test and the program may be.
    assert 0.2 < module._ECHO_SECONDS < 1
    process = start(after=f"{A_STEP}; time.sleep(0.3)", echo=3600)
    process.send_signal(signal.SIGINT)
    assert_asked(process)
    process.send_signal(signal.SIGTERM)
    assert end(process) == (75, "saved; the same command goes on\nand on\n", "")


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
