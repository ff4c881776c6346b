"""Measures how the time of a training step, or of an evaluation, grows with the number of entities.

    python docs/studies/large-graph/measure_growth.py step --entities=1e4,1e5,1e6,1e7
    python docs/studies/large-graph/measure_growth.py evaluation --entities=1e5,1e6,4e6

Only the number of entities differs: the graphs are random and have the same number of triples. All sizes are held in
one process and take turns. The table shows medians of the wall time and of the processor time, for one training step in
ms, or per query and entity in ns. One device is used, the pool is drawn uniformly, and there is no running average,
because both a guided pool and an average take passes over all entities.
"""

import argparse
import time

import jax
import numpy as np

from mocme_jax.config import default_config
from mocme_jax.measure.throughput import synthetic_graph
from mocme_jax.measure.timed_stages import training_stage
from mocme_jax.method.mocme import init_params
from mocme_jax.training.logs.progress import results_table
from mocme_jax.training.setup import builders
from mocme_jax.training.train_state import params_spec


def evaluation(config, graph):
    """Return a function that encodes all entities, as an evaluation of dev does, and ranks valid."""
    mapper, model = builders.build_mapper(config), builders.build_model(config, graph)
    params = mapper.place(init_params(model, jax.random.key(0), len(graph.entities)), params_spec(False))
    inputs = builders.build_inputs(config, graph, mapper)
    encode = builders.build_encode(config, model, graph, mapper, ())
    dataset = builders.Dataset(graph, tuple(graph.splits.values()), "", {}, [], "")
    evaluator = builders.build_evaluator(config, model, dataset, mapper)
    return lambda: evaluator.ranks(params.model, encode(params, inputs)[0], "valid")


def main():
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("step", "evaluation"))
    parser.add_argument("--entities", default="1e4,1e5", help="numbers of entities, such as 1e4,1e5")
    parser.add_argument("--width", type=int, default=16, help="width of each of the two experts")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--pool", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=32, help="training steps per timed call")
    parser.add_argument("--held", type=int, default=500, help="triples per evaluation")
    parser.add_argument("--repeats", type=int, default=9, help="timed calls per size")
    options = parser.parse_args()
    config = default_config()
    config.model.width, config.train.batch_size, config.negatives.pool = options.width, options.batch, options.pool
    config.train.adagrad, config.parallel.devices = "rowwise", 1
    calls, sizes = [], [int(float(size)) for size in options.entities.split(",")]
    for size in sizes:
        graph = synthetic_graph(size)
        graph = graph.replace(valid=graph.valid[: options.held])
        if options.what == "step":
            calls.append((training_stage("train", config, graph, options.steps).call, options.steps / 1e3))
        else:
            calls.append((evaluation(config, graph), 2 * len(graph.valid) * size / 1e9))
        calls[-1][0]()
        print(f"{size:,} entities: compiled", flush=True)
    seconds = np.zeros((len(calls), options.repeats, 2))
    for repeat in range(options.repeats):
        for place, (call, work) in enumerate(calls):
            start = time.perf_counter(), time.process_time()
            call()
            seconds[place, repeat] = (time.perf_counter() - start[0]) / work, (time.process_time() - start[1]) / work
    unit = "ms per step" if options.what == "step" else "ns per query and entity"
    medians = np.median(seconds, axis=1)
    # Against the first size in the same turn, so that a noisy moment hits both.
    ratios = np.median(seconds / seconds[:1], axis=1)
    rows = [
        {
            "entities": f"{size:,}",
            f"wall, {unit}": f"{medians[place, 0]:.3g}",
            f"processor, {unit}": f"{medians[place, 1]:.3g}",
            "wall, ratio": f"{ratios[place, 0]:.2f}",
            "processor, ratio": f"{ratios[place, 1]:.2f}",
        }
        for place, size in enumerate(sizes)
    ]
    results_table(rows, title=f"{options.what}: medians of {options.repeats} calls; ratios to the first row")


if __name__ == "__main__":
    main()
