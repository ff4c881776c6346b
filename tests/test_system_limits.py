"""What the system refuses: locks, a working directory that is gone, addresses for JAX's libraries. One line each."""

import errno
import fcntl
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from command_runner import assert_one_error, environment, run_here
from tiny_graph import tiny_flags, write_tiny_graph

from mocme_jax.command_line import run
from mocme_jax.errors import UserError, enough_memory
from mocme_jax.training import jax_start
from mocme_jax.training.checkpoints.run_folder import locked
from mocme_jax.training.jax_start import check_addresses


@pytest.fixture
def no_locks(monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_with_the_way_to_go_on(number, tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    words = rf"lock: cannot be locked \({os.strerror(number)}\): .* --config\.parallel\.lock=false, or name another"
    with pytest.raises(UserError, match=words), locked(tmp_path):
        pass
    with locked(tmp_path, lock=False):
        assert (tmp_path / "lock").exists()


@pytest.mark.slow
def test_train_goes_on_without_a_lock(no_locks, tmp_path, monkeypatch, capsys):
    graph = write_tiny_graph(tmp_path / "graph")
    flags = tiny_flags(graph, tmp_path / "run", train__epochs=2)
    assert_one_error(run_here("train", *flags, monkeypatch=monkeypatch), capsys.readouterr().err, "cannot be locked")
    assert run_here("train", *flags, "--config.parallel.lock=false", monkeypatch=monkeypatch) == 0
    assert (tmp_path / "run" / "results.json").exists()


def test_a_working_directory_that_is_gone(tmp_path, monkeypatch, capsys):
    gone = tmp_path / "gone"
    gone.mkdir()
    before = os.getcwd()
    os.chdir(gone)
    gone.rmdir()
    try:
        with pytest.raises(SystemExit) as ended:
            run(lambda: Path("run").absolute())
    finally:
        os.chdir(before)
    assert_one_error(ended.value.code, capsys.readouterr().err, "the working directory has been deleted")


def test_fewer_addresses_than_jax_maps(monkeypatch):
    for limit in (resource.RLIM_INFINITY, jax_start.LEAST):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        check_addresses()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10**9, 10**9))
    with pytest.raises(
        UserError, match=r"address space is limited to 1\.0 GB, .* at least 2\.1 GB .* ulimit -v unlimited"
    ):
        check_addresses()


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("can't start new thread"),
        ImportError("libjax_common.so: failed to map segment from shared object"),
        ImportError("libstdc++.so.6: cannot allocate memory in static TLS block"),
        MemoryError("std::bad_alloc"),
    ],
)
def test_libraries_and_threads_without_memory(error):
    with pytest.raises(UserError, match="out of memory in this; free some"), enough_memory("this", "free some"):
        raise error


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit works as on Linux")
@pytest.mark.parametrize("kilobytes", [60_000, 150_000, 700_000, 1_500_000])
def test_commands_under_a_limit_of_addresses(kilobytes, tmp_path):
    """At import of NumPy and of JAX, at the first thread, at the first program."""
    command = [sys.executable, "-m", "mocme_jax.predict", "--workdir=run", "--head=a", "--relation=b"]
    shell = f'ulimit -v {kilobytes}; exec "$0" "$@"'
    result = subprocess.run(
        ["bash", "-c", shell, *command], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert_one_error(result.returncode, result.stderr)
