"""A SLURM of two nodes on this machine: munged, slurmctld and two slurmd on loopback, in a temporary folder."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "scontrol")
# For what no sandbox has: cgroups, accounting, the number of CPUs that a node claims.
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=100000
SlurmdParameters=config_overrides
ReturnToService=2
MinJobAge=600
FirstJobId={first}
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool-%n
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
NodeName={host} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=16 State=UNKNOWN
NodeName={host}-second NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=16 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """What keeps SLURM from running here; empty if nothing does."""
    missing = [name for name in PROGRAMS if _program(name) is None]
    if missing:
        return f"{missing[0]} is not installed (apt-get install slurm-wlm munge)"
    if os.geteuid() != 0:
        return "SLURM's daemons need root to start processes of other users"
    try:
        socket.gethostbyname(socket.gethostname())
    except OSError:
        return "this machine's own name has no address, and SLURM gives it to the processes"
    return ""


def _program(name: str) -> str | None:
    # Daemons are not on every user's PATH.
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


class Slurm:
    """A cluster that runs; `environment` is for the commands that use it."""

    def __init__(self, folder: Path):
        self.folder, self.environment = folder, os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}

    def ask(self, *command: str) -> str:
        """What a command of SLURM prints."""
        ran = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, (command, ran.stderr)
        return ran.stdout

    def job(self, number: str) -> dict[str, str]:
        """What SLURM tells of a job: ``JobState``, ``ExitCode``, ``Restarts``, ..."""
        words = self.ask("scontrol", "--oneliner", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def ended(self, number: str, seconds: float = 120) -> dict[str, str]:
        """The same once the job is over for good."""
        end = time.monotonic() + seconds
        while (job := self.job(number))["JobState"] in ("PENDING", "RUNNING", "COMPLETING", "REQUEUED"):
            assert time.monotonic() < end, (job, self.log())
            time.sleep(0.2)
        return job

    def log(self) -> str:
        """The end of the controller's log, for messages."""
        return (self.folder / "slurmctld.log").read_text()[-3000:]

    def processes(self) -> list[int]:
        """All that belongs to it: the daemons, and what jobs have started."""
        mark, found = f"SLURM_CONF={self.folder / 'slurm.conf'}".encode(), []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        return found


@contextlib.contextmanager
def running_slurm() -> Iterator[Slurm]:
    """Start a cluster, and end all that it started."""
    # A short path, because the name of a socket is short.
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    slurm, daemons = Slurm(folder), []
    try:
        with contextlib.ExitStack() as held:
            listeners = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
            ports = [listener.getsockname()[1] for listener in listeners]
        host = socket.gethostname()
        # JAX takes a port by the number of the job.
        text = CONFIGURATION.format(folder=folder, host=host, ports=ports, first=random.randrange(1000, 5000))
        (folder / "slurm.conf").write_text(text)
        (folder / "state").mkdir()
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        names = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munge.pid"}
        names |= {"log-file": "munge.log", "seed-file": "munge.seed"}
        munge = ["munged", "--foreground", "--force", *(f"--{flag}={folder / name}" for flag, name in names.items())]
        nodes = [host, f"{host}-second"]
        for command in (munge, ["slurmctld", "-D", "-c"], *(["slurmd", "-D", "-N", node] for node in nodes)):
            with open(folder / "daemons.log", "ab") as log:
                command[0] = _program(command[0])
                daemons.append(subprocess.Popen(command, env=slurm.environment, stdout=log, stderr=log))
            if command is munge:
                _wait_for(lambda: (folder / "munge.socket").exists(), folder)
        _wait_for(lambda: _states(slurm) == ["idle", "idle"], folder)
        yield slurm
    finally:
        end = time.monotonic() + 10
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in slurm.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, number)
            while slurm.processes() and time.monotonic() < end:
                for daemon in daemons:
                    daemon.poll()
                time.sleep(0.1)
        for daemon in daemons:
            daemon.wait(timeout=10)
        shutil.rmtree(folder, ignore_errors=True)


def _states(slurm: Slurm) -> list[str]:
    asked = ["sinfo", "--noheader", "--Node", "--format=%t"]
    return subprocess.run(asked, env=slurm.environment, capture_output=True, text=True, timeout=30).stdout.split()


def _wait_for(holds, folder: Path) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end, (folder / "daemons.log").read_text()[-3000:]
        time.sleep(0.1)
