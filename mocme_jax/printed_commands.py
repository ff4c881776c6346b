"""Commands that messages print, as the reader can run them, and packages that such a command installs."""

import importlib
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mocme_jax.errors import MissingPackage


def python() -> str:
    """The Python that runs this, as a command in the working folder may call it."""
    found = shutil.which("python")
    if found and Path(found).parent == Path(sys.executable).parent:
        return "python"
    return shlex.quote(_from_here(Path(sys.executable)))


def to_install(packages: str = "", *, extra: str = "") -> str:
    """The command that installs packages, or those of an extra of this program, into the Python that runs this."""
    root = Path(__file__).resolve().parent.parent
    if extra:
        # A clone is installed from its folder; pip knows an installed wheel by its name.
        clone = (root / "pyproject.toml").is_file()
        packages = f'-e "{_from_here(root)}[{extra}]"' if clone else f'"mocme_jax[{extra}]"'
    return f"{python()} -m pip install {packages}"


def needed_package(name: str, need: str, packages: str = "", *, extra: str = "") -> Any:
    """An optional package, imported.

    Args:
      name: of the module.
      need: what needs it, for the message.
      packages, extra: see ``to_install``.

    Raises:
      MissingPackage: it is not installed, or a library that it loads is not.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise MissingPackage(f"{need}; run: {to_install(packages, extra=extra)}") from error


def to_train_on(argv: Sequence[str], epochs: int) -> str:
    """The training command of these arguments, with that many epochs."""
    # Of equal flags the last counts.
    return f"{python()} -m mocme_jax.train {shlex.join([*argv, f'--config.train.epochs={epochs}'])}"


def _from_here(path: Path) -> str:
    """A path as it is written in the working folder, if it lies in it."""
    here = Path.cwd()
    return os.fspath(path.relative_to(here) if path.is_relative_to(here) else path)
