"""Trains MoCME on a graph, keeps the best model on dev and scores it once on test.

Without flags it trains on the embedded graph, atlas. Ctrl-C or SIGTERM stops after the current step and saves, with
exit status 75; a second one stops at once. Rerunning the same command resumes. The folder of the run contains
checkpoints, metrics.jsonl, results.json and MODEL_CARD.md.
"""

import sys

from mocme_jax.command_line import run
from mocme_jax.flags import parse, processes_of, stopped_status_of
from mocme_jax.printed_commands import to_train_on


def main() -> int:
    """Reads the flags, then imports JAX and trains."""
    config, workdir = parse(sys.argv[1:], __doc__)
    from mocme_jax.parallel.processes import joined, met
    from mocme_jax.training.preemption import Preemption

    with Preemption(stopped_status_of(config)):
        place = met(**processes_of(config, workdir))
    # Afterwards, because JAX takes SIGTERM for itself when processes join.
    preemption = Preemption(stopped_status_of(config), alone=place is None)
    with joined(place) as process, preemption:
        from mocme_jax.serving.model_card import write_card
        from mocme_jax.training.run import train_and_evaluate

        results = train_and_evaluate(config, workdir, preemption)
        write_card(workdir, results)
        last = results["run"]["epoch"]
        if results["run"]["best_epoch"] == last and not process:
            command = to_train_on(sys.argv[1:], 2 * last)
            print(f"the best epoch is the last one, so training longer may help: {command}")
    return preemption.status


if __name__ == "__main__":
    run(main)
