"""Trains MoCME on a graph, keeps the best model on dev, scores it once on test.

Without flags: the embedded graph. The same command run again goes on from where it stopped; Ctrl-C or SIGTERM stops it
in good order, a second one at once. The folder of the run holds the checkpoints, metrics.jsonl, results.json and
MODEL_CARD.md.
"""

import sys

from mocme_jax.command_line import run
from mocme_jax.flags import parse, processes_of


def main() -> None:
    """Reads the flags, then imports JAX and trains."""
    config, workdir = parse(sys.argv[1:], __doc__)
    from mocme_jax.parallel.processes import joined
    from mocme_jax.training.preemption import Preemption

    coordinator, count, process = processes_of(config)
    with joined(coordinator, count, process), Preemption(alone=coordinator is None) as preemption:
        from mocme_jax.serving.model_card import write_card
        from mocme_jax.training.run import train_and_evaluate

        write_card(workdir, train_and_evaluate(config, workdir, preemption))


if __name__ == "__main__":
    run(main)
