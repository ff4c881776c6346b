"""Exports a trained model: tables of vectors with names, a scoring function, a PyKEEN model.

  mocme export --workdir=runs/atlas --out=export
      writes the tables as tables.npz and tables.safetensors, the names and the triples
  mocme export --workdir=runs/atlas --out=export --formats=jax,parquet,pykeen

docs/guides/export.md describes the files and how to read them.
"""

import sys
from pathlib import Path

from mocme_jax.command_line import run
from mocme_jax.config_fields import Field, a_place
from mocme_jax.flags import OF_A_RUN, parse_options

OPTIONS = {
    **OF_A_RUN,
    "out": a_place("folder to write into"),
    "formats": Field(
        ("npz", "safetensors"),
        "formats to write; jax: a scoring function; needs the extra export; parquet needs the extra parquet; pykeen "
        "needs a run of ComplEx with structure alone",
        choices=("npz", "safetensors", "parquet", "jax", "pykeen"),
    ),
}


def main() -> None:
    """Reads the flags, then imports JAX and writes."""
    options = parse_options(sys.argv[1:], __doc__, OPTIONS, required=("workdir", "out"))
    from mocme_jax.serving.exported_tables import check_packages, export
    from mocme_jax.serving.run_loading import load
    from mocme_jax.training.logs.progress import make_console

    check_packages(options["formats"])
    console, out, formats = make_console(sys.stderr), Path(options.pop("out")), options.pop("formats")
    for path in export(load(**options, notify=console.print), out, formats):
        console.print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    run(main)
