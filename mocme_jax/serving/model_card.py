"""``MODEL_CARD.md``, which describes a finished run to people who find its folder.

The headings are those of Mitchell et al., "Model Cards for Model Reporting" (FAT* 2019), as far as they apply.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import jax

from mocme_jax.errors import UserError, one_line
from mocme_jax.flags import PLACES_MEANING, flags_of
from mocme_jax.serving.calibration import MEANING, identity_of, read_calibration
from mocme_jax.training.checkpoints.run_folder import write_whole
from mocme_jax.training.logs.run_results import joined_scores_of, scores_of
from mocme_jax.training.setup.settings import settings_of

FILE = "MODEL_CARD.md"
_MARKUP = re.compile(r"[\\`*\[\]<>|&~]")

_USE = (
    "The model suggests triples; a person or another source must check them. Scores are measured on held-out triples "
    "of this graph. They say nothing about entities of other kinds, and less about entities with few triples. A "
    "probability assumes that the query has a missing answer; it is not the probability that a triple is true. The "
    "model has learned the errors and gaps of the graph too."
)


def write_card(workdir: Path, results: dict) -> None:
    """Write the model card of a run with these ``results.json``, in process 0, unless the folder cannot be written."""
    if jax.process_index():
        return
    kept = read_calibration(workdir, identity_of(results["fingerprint"], results["run"]))
    text = card(results, None if kept is None else kept.report)
    with contextlib.suppress(UserError):
        write_whole(Path(workdir) / FILE, text.encode("utf-8", "surrogatepass"))


def card(results: dict, calibration: dict | None) -> str:
    """Return the text of the model card.

    Args:
      results: the content of ``results.json``.
      calibration: the report of the calibration; None if there is none yet.
    """
    graph, run, config = results["graph"], results["run"], results["config"]
    name = plain(graph["name"])
    model, sources = settings_of(config), graph.get("made_by", {})
    made_by = {kind: f", made by {plain(word)}" for kind, word in sources.items()}
    lines = [
        f"# MoCME on {name}",
        "",
        f"The model completes triples of {name}: for a missing head or tail, it ranks {graph['entities']:,} entities. "
        f"Score function `{plain(str(model.score))}`, width {plain(str(model.width))}; "
        f"{_experts(results, plain(str(model.fusion)))}; best epoch on dev {run['best_epoch']} of {run['epoch']}, "
        f"{run['minutes']:.1f} minutes on {plain(results['device'])} "
        f"(jax {plain(results['jax'])}, mocme_jax {plain(results['version'])}).",
        "",
        "## Data",
        "| | |",
        "|---|---|",
        f"| entities, relations | {graph['entities']:,}, {graph['relations']:,} |",
        *(f"| {plain(split)} triples | {count:,} |" for split, count in graph["triples"].items()),
        f"| dev | {plain(graph['dev'])} |",
        *(
            f"| modality {plain(kind)} | {share:.1%} of the entities{made_by.get(kind, '')} |"
            for kind, share in graph["modalities"].items()
        ),
        f"| fingerprint | `{plain(results['fingerprint'][:16])}` |",
        "",
        "## Warnings of the audit",
        *([f"- {plain(line, most=1_000)}" for line in results["warnings"]] or ["None."]),
        "",
        "## Scores",
        "The best epoch is chosen on dev, and test is scored once: both directions, filtered by all splits, ties count "
        "half, full float32. Each half of dev is ranked with fusion weights that were not fitted on it. Clean rows are "
        "the test triples that are not in train.",
        "",
        "| | queries | MRR | Hits@1 | Hits@3 | Hits@10 |",
        "|---|---|---|---|---|---|",
        *_scores(results),
        "",
        "## Weights",
        "Mean share of each expert in the weights of a query entity, over all entities: "
        + ", ".join(f"{plain(expert)} {share:.3f}" for expert, share in results["weights"].items())
        + ". A share does not measure what an expert adds; `evaluate --information` does.",
        "",
        "## Calibration",
        *_calibration(calibration),
        "",
        "## Use",
        _USE,
        "",
        "## Run it again",
        f"DIR is the folder of a run. {PLACES_MEANING}. If the command has no `data.features_dir`, "
        "the feature files are in FOLDER too.",
        "```bash",
        "python -m mocme_jax.evaluate --workdir=DIR    # these numbers, from the checkpoint",
        one_line(" ".join(["python -m mocme_jax.train --workdir=DIR", *flags_of(config)])),
        "```",
    ]
    return "\n".join(lines) + "\n"


def plain(text: str, most: int = 120) -> str:
    """Escape text of unknown origin for Markdown, on one line; longer text is cut."""
    text = one_line(text)
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    return _MARKUP.sub(r"\\\g<0>", text)


def _experts(results: dict, fusion: str) -> str:
    names = list(map(plain, results["weights"]))
    return f"experts: {', '.join(names)}; fusion `{fusion}`" if len(names) > 1 else f"one expert, the {names[0]}"


def _scores(results: dict) -> Iterator[str]:
    rows, test = list(scores_of(results).items()), results["test"]
    for group in ("direction", "relation_kind", "answer_seen") if test is not None else ():
        named = test["groups"].get(group, {}).items()
        rows += [(f"test, {group.replace('_', ' ')}: {plain(name)}", metrics) for name, metrics in named]
    for name, metrics in rows + list(joined_scores_of(results).items()):
        numbers = [metrics[key] for key in ("mrr", "hits@1", "hits@3", "hits@10")]
        shown = " | ".join("-" if value is None else f"{value:.4f}" for value in numbers)
        yield f"| {name} | {metrics['count']:,} | {shown} |"


def _calibration(report: dict | None) -> Iterator[str]:
    if report is None:
        yield "Not fitted yet. The first use of the model (`python -m mocme_jax.predict`) fits it on dev."
        return
    yield f"Meaning of a probability: {MEANING}. Fitted on dev. Expected calibration error of the top answers:"
    yield ""
    yield "| | queries | before the fit | after the fit | exact probabilities | above .9: answers, right |"
    yield "|---|---|---|---|---|---|"
    for name, split in report["splits"].items():
        above = split["after"]["above"]["0.9"]
        right = "-" if above["right"] is None else f"{above['right']:.1%}"
        yield (
            f"| {plain(name)} | {split['after']['questions']:,} | {split['before']['error']:.4f} | "
            f"{split['after']['error']:.4f} | {split['after']['by_chance']:.4f} | {above['questions']:,}, {right} |"
        )
