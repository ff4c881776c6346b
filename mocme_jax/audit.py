"""Prints what a graph is worth: counts, coverage, duplicates, overlaps, leaks, what not to believe.

python -m mocme_jax.audit                     the embedded graph
python -m mocme_jax.audit --data=FOLDER       a graph of your own, or a benchmark
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mocme_jax.command_line import Parser, run


def main() -> None:
    """Reads the flags, audits the graph, prints the report."""
    parser = Parser(
        prog="python -m mocme_jax.audit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, help="folder of the graph (default: the embedded one)")
    parser.add_argument("--features", type=Path, help="folder of its feature files (default: the same folder)")
    parser.add_argument("--name", default="", help="the graph's name, as in feature files (default: the folder's)")
    flags = parser.parse_args()

    from mocme_jax.data.audit.graph_audit import audit
    from mocme_jax.data.graph.graph_folder import atlas_directory, load_graph

    graph = load_graph(flags.data or atlas_directory(), flags.features, name=flags.name, make=("numeric",))
    print(audit(graph).report())


if __name__ == "__main__":
    run(main)
