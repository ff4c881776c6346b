"""Audits a graph: counts, feature coverage, duplicates, overlaps between splits, leaks.

  mocme audit                    audits the embedded graph, atlas
  mocme audit --data=FOLDER      audits a graph of your own, or a benchmark

A leak is a test triple that train contains, as it is or reversed under the same or an inverse relation.
"""

import sys
from pathlib import Path

from mocme_jax.command_line import run
from mocme_jax.config_fields import Field, a_place
from mocme_jax.flags import parse_options

OPTIONS = {
    "data": a_place("folder of the graph; none: the embedded graph, atlas"),
    "features": a_place("folder of the feature files; none: same as --data"),
    "name": Field("", "name of the graph, if the feature files contain it in their names; none: name of the folder"),
}


def main() -> None:
    """Reads the flags, audits the graph, prints the report."""
    options = parse_options(sys.argv[1:], __doc__, OPTIONS)
    from mocme_jax.data.audit.graph_audit import audit
    from mocme_jax.data.graph.graph_folder import atlas_directory, load_graph

    features = Path(options["features"]) if options["features"] else None
    folder = Path(options["data"] or atlas_directory())
    graph = load_graph(folder, features, name=options["name"], make=("numeric",), notify=print)
    print(audit(graph).report())


if __name__ == "__main__":
    run(main)
