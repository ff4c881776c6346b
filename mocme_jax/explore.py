"""Serves a trained model as web pages on this computer: search entities, ask queries, explain answers, add entities.

  mocme explore --workdir=runs/atlas
  mocme explore --workdir=runs/mine --images=PICTURES
      with pictures named after entities: Paris.jpg, 17.png, Paris/1.jpg, as for mocme prepare

Prints the address to open in a browser. Ctrl-C stops it. Other computers cannot connect. Needs the extra explore.
"""

import sys
from pathlib import Path

from mocme_jax.command_line import run
from mocme_jax.config_fields import Field, a_place
from mocme_jax.errors import UserError
from mocme_jax.flags import OF_A_RUN, OF_A_RUN_OR_NONE, parse_options
from mocme_jax.printed_commands import to_install

OPTIONS = {
    **OF_A_RUN,
    "workdir": OF_A_RUN_OR_NONE,
    "images": a_place("folder of pictures to show, named after entities (extra: images)"),
    "port": Field(8765, "port to listen on; 0: any free port", low=0, high=65535),
}


def main() -> None:
    """Reads the flags, loads the model, serves its pages until Ctrl-C."""
    options = parse_options(sys.argv[1:], __doc__, OPTIONS)
    try:
        import jinja2  # noqa: F401
        import python_multipart  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UserError(f"the explorer needs {error.name}; run: {to_install(extra='explore')}") from error
    images = options["images"] and Path(options["images"])
    if images and not images.is_dir():
        raise UserError(f"{images}: no such folder; --images expects a folder of pictures")
    from mocme_jax.explorer.server import explore

    explore(options["workdir"], options["data_dir"], options["features_dir"], images, options["port"])


if __name__ == "__main__":
    run(main)
