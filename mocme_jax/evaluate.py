"""Scores a trained model again from its best checkpoint.

Prints whether the numbers equal those in results.json. On the same kind of device they are equal to the last digit.
The exit status is 1 if they differ.

--protocol=openke prints beside them the numbers that OpenKE's evaluation would give, in which the gold answer wins all
ties. They are only for comparison with published numbers and are stored nowhere; see docs/explanation/protocol.md.
"""

import sys
from pathlib import Path

from mocme_jax.command_line import run
from mocme_jax.config_fields import Field
from mocme_jax.flags import OF_A_RUN, parse_options

OPTIONS = {
    **OF_A_RUN,
    "json": Field(False, "print the whole report as JSON instead of a table"),
    "protocol": Field(
        "strict",
        "how ties count; strict: half, as everywhere else; openke: also print the numbers in which the gold answer "
        "wins all ties",
        choices=("strict", "openke"),
    ),
    "information": Field(
        False,
        "also print how many nats of information about the answers of dev each modality and expert adds to the others, "
        "and the dev MRR of the same experts before their weights are fitted",
    ),
}


def main() -> int:
    """Reads the flags, then imports JAX and evaluates. Status 1: the numbers are not those of results.json."""
    options = parse_options(sys.argv[1:], __doc__, OPTIONS, required=("workdir",))
    from mocme_jax.training.reevaluation import evaluate_workdir

    openke = options.pop("protocol") == "openke"
    same = evaluate_workdir(Path(options.pop("workdir")), as_json=options.pop("json"), openke=openke, **options)
    return 0 if same else 1


if __name__ == "__main__":
    run(main)
