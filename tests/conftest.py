"""Eight CPU devices for every test, the benchmark data where it is, and a small graph on disk.

Most of the time of the tests is compiling. So compiled programs are kept from one session to the next, in
``tests`` beside the program's own in the user's cache folder, and are shared with the commands that tests start; and
XLA is asked for little optimisation, except where a test trains for real. What the user sets stays:
``JAX_DISABLE_MOST_OPTIMIZATIONS=0 pytest`` optimises everywhere, ``JAX_ENABLE_COMPILATION_CACHE=0`` keeps nothing.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# JAX reads these once, when it is first imported.
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
COMPILED = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mocme_jax" / "tests"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(COMPILED))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

ROOT = Path(__file__).resolve().parent.parent
# Tracing makes objects by the million, nearly all of which stay. Looking through them for cycles as often as Python
# does by itself was a tenth of the time.
gc.set_threshold(100_000, 50, 50)

# Linux allows a process 65,530 mappings of memory, and each compiled program takes some.
MANY_MAPPINGS, KEPT_DAYS = 20_000, 14
# Begun first, so that no process is left with one of them when the other is done.
LONG = ("docs", "slurm", "studies", "processes", "attacks", "fuzz", "drill", "quickstart_atlas", "tour", "run")
LONG += ("failures", "resuming", "joining", "benchmarks", "layouts", "run_places")
LONG += ("training_program", "devices_atlas", "coldstart", "measure", "report", "report_browser")


def pytest_configure(config: pytest.Config) -> None:
    """Drops what was compiled long ago."""
    if hasattr(config, "workerinput") or not COMPILED.is_dir():
        return
    for path in COMPILED.iterdir():
        if time.time() - path.stat().st_mtime > KEPT_DAYS * 86400:
            path.unlink(missing_ok=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What reads the benchmarks is slow; the files that take longest come first."""
    places = {f"test_{name}": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))
    for item in items:
        if "benchmark_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def programs_are_dropped() -> Iterator[None]:
    """Lets compiled programs go before all together meet the limit of a process's mappings, which ends the process."""
    yield
    mappings = Path("/proc/self/maps")
    if "jax" in sys.modules and (not mappings.exists() or mappings.read_bytes().count(b"\n") > MANY_MAPPINGS):
        sys.modules["jax"].clear_caches()
        gc.collect()


@pytest.fixture(scope="module")
def compiled_as_for_users() -> Iterator[None]:
    """Full optimisation, here and in the commands that the tests of a file start."""
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("JAX_DISABLE_MOST_OPTIMIZATIONS", raising=False)
        jax.config.update("jax_disable_most_optimizations", False)
        yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def one_device() -> Iterator[None]:
    """One device unless a test says otherwise, as on most readers' machines; eight are slow to compile for."""
    from mocme_jax.config_fields import FIELDS

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FIELDS, "parallel.devices", dataclasses.replace(FIELDS["parallel.devices"], default=1))
        yield


@pytest.fixture
def plug_ins_forgotten() -> Iterator[None]:
    """Forgets the scores, fusions and encoders that a test adds; later tests of the process see the program's own."""
    from mocme_jax.config_fields import FIELDS
    from mocme_jax.data.media.file_encoders import ADDED
    from mocme_jax.method.complementarity import FUSIONS
    from mocme_jax.method.scoring import SCORES

    registers = FIELDS, SCORES, FUSIONS, ADDED
    before = [dict(register) for register in registers]
    yield
    for register, entries in zip(registers, before, strict=True):
        register.clear()
        register.update(entries)


@pytest.fixture(scope="session")
def benchmark_data() -> Path:
    """The folder of the five benchmarks, beside the repository; tests that need it are skipped where it is not."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the benchmark data is not here")
    return folder


@pytest.fixture
def write_files(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes texts by file name into a folder, ``graph`` by default, and returns the folder."""

    def write(files: dict[str, str], folder: str = "graph") -> Path:
        target = tmp_path / folder
        target.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (target / name).write_bytes(text.encode("utf-8"))
        return target

    return write


@pytest.fixture
def openke_files() -> dict[str, str]:
    """A graph of 3 entities, one with spaces in its name, and 2 relations; 3 train, 1 valid and 1 test triple."""
    return {
        "entity2id.txt": "3\nAda Lovelace\t0\nLondon\t1\nFranciaorsz\u00e1g\t2\n",
        "relation2id.txt": "2\nborn in 0\nin 1\n",
        "train2id.txt": "3\n0 1 0\n1 2 1\n0 2 0\n",
        "valid2id.txt": "1\n0 1 1\n",
        "test2id.txt": "1\n2 1 1\n",
    }


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> Path:
    """The workdir of a finished run of the full model on the tiny graph; for reading only."""
    from tiny_graph import tiny_flags, write_tiny_graph

    folder = tmp_path_factory.mktemp("tiny_run")
    fields = {"data__modalities": "text,numeric", "train__epochs": 12, "train__eval_every": 4}
    fields |= {"model__self_answers": "seen", "model__cardinality": 0.5}
    return _finished(tiny_flags(write_tiny_graph(folder / "graph"), folder / "run", **fields), tmp_path_factory)


@pytest.fixture(scope="session")
def model(tiny_run):
    """That run's model, loaded once, so that its programs are compiled once."""
    import mocme_jax

    return mocme_jax.load(tiny_run)


@pytest.fixture(scope="session")
def tiny_baseline(tmp_path_factory) -> Path:
    """The workdir of a finished run of structure alone on the tiny graph; for reading only."""
    from tiny_graph import tiny_flags, write_tiny_graph

    folder = tmp_path_factory.mktemp("tiny_baseline")
    fields = {"negatives__weighting": "uniform", "train__epochs": 8}
    return _finished(tiny_flags(write_tiny_graph(folder / "graph"), folder / "baseline", **fields), tmp_path_factory)


def _finished(flags: list[str], tmp_path_factory) -> Path:
    """Trains to the end what the flags say; what was compiled for one of the runs serves the others."""
    from mocme_jax.flags import parse

    config, workdir = parse(flags, "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "compiled"))
        from mocme_jax.training.run import train_and_evaluate

        train_and_evaluate(config, workdir)
    return workdir


@pytest.fixture(scope="session")
def strange_run(tmp_path_factory) -> Path:
    """A finished run on the tiny graph under names that a page must not take for anything but text; see there."""
    from strange_names import strange_graph
    from tiny_graph import tiny_flags

    folder = tmp_path_factory.mktemp("strange_run")
    fields = {"data__modalities": "text,numeric", "train__epochs": 2}
    # As above, so that what is compiled serves both.
    fields |= {"model__self_answers": "seen", "model__cardinality": 0.5}
    fields |= {"data__name": "a<b>&amp;\"'"}
    return _finished(tiny_flags(strange_graph(folder / "graph"), folder / "run<i>", **fields), tmp_path_factory)
