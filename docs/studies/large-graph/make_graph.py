"""Writes a synthetic graph with communities, for measurements of large graphs.

    python docs/studies/large-graph/make_graph.py --entities=2e6 --triples=1e7 --out=FOLDER

Entities are divided into communities of 200, which lie on a circle. Each relation turns the circle by an angle of its
own. The head of a triple is any entity, and its tail is an entity of the community to which the relation turns the
head's, more often one of the first. So a model that has learned the circle ranks about 100 candidates above the answer;
chance ranks half of the entities above it. A modality of 64 columns holds sines and cosines of the community's angle,
multiplied by 1, 2, 4 and so on up to 128, with noise, for 90% of the entities.
"""

import argparse
from pathlib import Path

import numpy as np

SIZE = 200
ROWS = 1_000_000


def draw(rng, count, entities, relations):
    """Triples int64 ``[count, 3]``."""
    communities = max(entities // SIZE, 1)
    steps = np.random.default_rng(1).integers(0, communities, relations)
    heads, kinds = rng.integers(0, entities, count), rng.integers(0, relations, count)
    # Rank 0 of a community is the most frequent answer.
    place = (SIZE * rng.random(count) ** 2).astype(np.int64)
    tails = (heads % communities + steps[kinds]) % communities + communities * place
    return np.stack([heads, kinds, np.minimum(tails, entities - 1)], axis=1)


def write(path, rng, count, entities, relations):
    """Write triples in OpenKE's layout, a million at a time."""
    with path.open("w", encoding="ascii") as file:
        file.write(f"{count}\n")
        for start in range(0, count, ROWS):
            rows = draw(rng, min(ROWS, count - start), entities, relations)
            file.writelines(f"{h} {t} {r}\n" for h, r, t in rows.tolist())


def main():
    """Write the files of the graph, and text.npy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entities", type=float, default=2e6)
    parser.add_argument("--triples", type=float, default=1e7)
    parser.add_argument("--relations", type=int, default=500)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--held", type=int, default=1000, help="number of valid triples, and of test triples")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    entities, rng = int(options.entities), np.random.default_rng(0)
    options.out.mkdir(parents=True)
    for split, count in (("train", int(options.triples)), ("valid", options.held), ("test", options.held)):
        write(options.out / f"{split}2id.txt", rng, count, entities, options.relations)
    for name, count in (("entity", entities), ("relation", options.relations)):
        with (options.out / f"{name}2id.txt").open("w", encoding="ascii") as file:
            file.write(f"{count}\n")
            file.writelines(f"{name[0]}{number}\t{number}\n" for number in range(count))
    communities = max(entities // SIZE, 1)
    angles = 2 * np.pi / communities * np.arange(communities)[:, None] * 2 ** (np.arange(options.width // 2) % 8)
    centres = np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    features = np.lib.format.open_memmap(
        options.out / "text.npy", mode="w+", dtype=np.float32, shape=(entities, options.width)
    )
    for start in range(0, entities, ROWS):
        part = np.arange(start, min(start + ROWS, entities))
        noise = 0.1 * rng.standard_normal((len(part), options.width), dtype=np.float32)
        features[part] = np.where(rng.random((len(part), 1)) < 0.9, centres[part % communities] + noise, np.nan)


if __name__ == "__main__":
    main()
