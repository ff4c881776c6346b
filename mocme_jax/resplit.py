"""Splits a graph afresh without leaks, and writes it as a folder of its own.

  mocme resplit --data=FOLDER --out=SPLIT --seed=1

All triples between the same two entities, in either direction, are in one split, and repeated triples are dropped. So
no test triple has its reverse or a relation between its two entities in train. Every entity and relation of valid and
test occurs in train. By default valid and test are as large as those of the graph.

Features and the files that they are made from (labels, descriptions, numbers) are copied into SPLIT. Entities keep
their ids. If the features are in a folder of their own, give that folder to train: --config.data.features_dir=FEATURES.
Then train with --config.data.dir=SPLIT.
"""

import sys
from pathlib import Path

from mocme_jax.command_line import run
from mocme_jax.config_fields import Field, a_place
from mocme_jax.flags import parse_options

OPTIONS = {
    "data": a_place("folder of the graph; all of its splits are used"),
    "out": a_place("folder to write the new split into"),
    "dev": Field(None, "share of the triples that becomes valid; none: as in the graph, .1 if it has none", kind=float),
    "test": Field(None, "share of the triples that becomes test; none: as in the graph, .1 if it has none", kind=float),
    "seed": Field(0, "seed of the split", low=0),
    "overwrite": Field(False, "replace existing files"),
}


def main() -> None:
    """Reads the flags, splits the graph, writes it, says what was written."""
    options = parse_options(sys.argv[1:], __doc__, OPTIONS, required=("data", "out"))
    from mocme_jax.data.graph.fresh_split import resplit_folder

    resplit_folder(**(options | {name: Path(options[name]) for name in ("data", "out")}))


if __name__ == "__main__":
    run(main)
