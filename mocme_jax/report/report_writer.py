"""Writes the report of a folder or several: a page about runs, or about a study."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mocme_jax.config import flat
from mocme_jax.config_values import show
from mocme_jax.data.features.entity_files import FOLDERS
from mocme_jax.data.media.file_encoders import MEDIA
from mocme_jax.errors import UserError
from mocme_jax.flags import OF_A_MACHINE, PLACES_MEANING
from mocme_jax.report import charts
from mocme_jax.report import expert_weights as weighing
from mocme_jax.report import score_tables as scores
from mocme_jax.report.entity_media import SECONDS, EntityMedia
from mocme_jax.report.finished_run import Finished, read_finished
from mocme_jax.report.html_page import render, write_page
from mocme_jax.report.modality_worth import worth
from mocme_jax.report.run_measurements import Measured, measure
from mocme_jax.report.shown_answers import best_queries, chosen_entities, likely_triples, worst_queries
from mocme_jax.report.study_page import read_study, study_context
from mocme_jax.serving.calibration import MEANING
from mocme_jax.serving.name_lookup import Lookup
from mocme_jax.studies.study_folder import STUDY

FILE = "report.html"


def write_report(
    workdirs: Sequence[Path],
    out: Path | None = None,
    *,
    baseline: Path | None = None,
    entities: Sequence[str] = (),
    images: Path | None = None,
    audio: Path | None = None,
    video: Path | None = None,
    data_dir: str | None = None,
    features_dir: str | None = None,
    notify: Callable[[str], None] | None = None,
) -> Path:
    """Writes one self-contained HTML page about a finished run, several side by side, or a study.

    Args:
      workdirs: folders of finished runs; or one folder of a study, which ``study.json`` tells.
      out: the file; None for ``report.html`` in the first folder.
      baseline: a run of structure alone, to put beside a single run.
      entities: names of the entities whose answers are shown; none for the report's choice.
      images, audio, video: folders of files named for entities (see ``data.features.entity_files``). The page shows
        their pictures, the beginnings of their sounds and a frame of their films. Kinds of files that no installed
        package reads are left out, which ``notify`` is told.
      data_dir, features_dir: where graph and features lie now; None where the runs found them.
      notify: told in one line of work that takes a while.

    Returns:
      The file.

    Raises:
      UserError: a folder holds no finished run, its checkpoint cannot be restored, an option does not fit,
        or the page cannot be written.
    """
    workdirs = [Path(folder) for folder in workdirs]
    if not workdirs:
        raise UserError("--workdir: expected one or more folders, got none")
    given = dict(images=images, audio=audio, video=video)
    folders = {kind: given[flag] for flag, kind in FOLDERS.items() if given[flag] is not None}
    out = workdirs[0] / FILE if out is None else out
    studies = [folder for folder in workdirs if os.path.lexists(folder / STUDY)]
    if studies:
        if len(workdirs) > 1:
            raise UserError(f"{studies[0]}: is a study; report it alone")
        if baseline is not None or entities or folders:
            raise UserError("--baseline, --entities, --images, --audio and --video are for runs, not for a study")
        page = render("study.html", study_context(read_study(studies[0])))
    else:
        page = _runs(workdirs, baseline, entities, folders, data_dir, features_dir, notify)
    write_page(out, page)
    return out


def _runs(workdirs, baseline, entities, folders, data_dir, features_dir, notify) -> str:
    if len(workdirs) > 1 and baseline is not None:
        raise UserError("--baseline is for one run; with several runs, add the baseline to --workdir")
    if len({folder.resolve() for folder in workdirs}) < len(workdirs):
        raise UserError("--workdir: a folder is given twice")

    names = short_names([*workdirs, *([] if baseline is None else [baseline])])
    # All files are read before any checkpoint is restored: what is missing is told at once.
    found = [read_finished(folder, name) for folder, name in zip(workdirs, names, strict=False)]
    base = None if baseline is None else read_finished(baseline, names[-1])
    if base is not None and not base.is_structure_alone:
        raise UserError(f"--baseline={baseline}: has {', '.join(base.modalities)}; a baseline must be structure alone")

    def check(names: Lookup, _: Lookup) -> None:
        names.ids(entities)
        EntityMedia(folders, names.names)

    def measured(run: Finished) -> Measured:
        # Entities and their files are shown with the answers of this run.
        asked = dict(check=check) if run is found[0] else {}
        return measure(run, data_dir=data_dir, features_dir=features_dir, notify=notify, **asked)

    shown = [measured(run) for run in found]
    if base is not None:
        compared = measured(base)
        if other_graphs([shown[0], compared]):
            raise UserError(f"--baseline={baseline}: its names or test triples differ from those of {workdirs[0]}")
    else:
        compared = next((one for one in shown if one.run.is_structure_alone), None) if len(shown) > 1 else None
    media = EntityMedia(folders, shown[0].model.entities.names)
    context = runs_context(shown, compared, entities=entities, media=media, notify=notify)
    for line in media.left_out if notify else ():
        notify(line)
    return render("runs.html", context)


def short_names(folders: Sequence[Path]) -> list[str]:
    """The last part of each path, with as many before it as tell the paths apart."""
    parts = [Path(folder).resolve().parts for folder in folders]
    length = 1
    while len({part[-length:] for part in parts}) < len(set(parts)):
        length += 1
    return ["/".join(part[-length:]) for part in parts]


# Of long lists: shown at once, and shown at all; results.json has the rest.
FIRST, MOST = 10, 400


def runs_context(
    shown: Sequence[Measured],
    baseline: Measured | None,
    *,
    entities: Sequence[str],
    media: EntityMedia,
    notify: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """What the template ``runs.html`` takes.

    Args:
      shown: one run, or several side by side; all sections are of them.
      baseline: of structure alone: one of ``shown``, or another that the scores alone are put beside.
      entities, notify: see ``write_report``; answers are those of the first run.
      media: of the first run's entities.
    """
    compared = [*shown, *([baseline] if baseline is not None and baseline not in shown else [])]
    runs, all_runs = [one.run for one in shown], [one.run for one in compared]
    lead, strange = shown[0], other_graphs(compared)
    base = None if strange else baseline
    colours = charts.expert_colours(runs)
    wanted = set(runs[0].modalities)
    return {
        "title": f"MoCME on {runs[0].results['graph']['name']}",
        "runs": runs,
        "compared": all_runs,
        "baseline": base and base.run,
        "strange": strange,
        "splits": scores.side_by_side(compared, base),
        "details": [(run, scores.all_rows(run)) for run in runs],
        "differing": differing(all_runs),
        "curves": charts.dev_curves(all_runs) + charts.loss_curves(runs),
        "classes": charts.class_charts(runs),
        "colours": colours,
        "weighed": [weights_context(one, colours) for one in shown if len(one.run.experts) > 1],
        "weights_over_time": charts.weight_charts(runs),
        "worth": [(one.run, worth(one.run, one.masked, one.model.relations.names)) for one in shown if one.masked],
        "entities": chosen_entities(lead, entities, media),
        "chosen": bool(entities),
        "media": media,
        "seconds": SECONDS,
        # The modalities whose files the page could show if it knew their folder, by the flag that names it.
        "not_shown": [(flag, MEDIA[kind].plural) for flag, kind in FOLDERS.items() if kind in wanted - media.asked],
        "best": best_queries(lead),
        "worst": worst_queries(lead),
        "likely": likely_triples(lead.model, notify),
        "ranks": scores.rank_charts(shown[:1] if strange else compared),
        "kinds": scores.groups_of(all_runs, "relation_kind"),
        "modalities": cut([] if strange else scores.by_answer_modalities(compared)),
        "carried": {pattern: pattern.replace("+", ", ") for one in shown for pattern in one.patterns},
        "relations": cut(scores.groups_of(all_runs, "relation", by_count=True)),
        "readable": {
            name: text
            for one in shown
            for name, text in zip(one.model.relations.names, one.model.relations.readable, strict=True)
        },
        "reliability": scores.reliability_charts(shown),
        "calibration": [(one.run, one.model.calibration.report["splits"]) for one in shown],
        "places": PLACES_MEANING,
        "meaning": MEANING,
    }


def weights_context(one: Measured, colours: Mapping[str, int]) -> dict[str, Any]:
    """How a run weighs its experts: in all, by pattern and by relation."""
    nats, shares = one.run.added_by_experts, one.run.results["weights"]
    return {
        "run": one.run,
        "rows": [(name, colours[name], share, one.reads(name), nats.get(name)) for name, share in shares.items()],
        "has_nats": bool(nats),
        "gain": one.run.gain_of_weights,
        "patterns": cut(weighing.pattern_bars(one, colours), 6),
        "relations": cut(weighing.relation_bars(one, colours), 6),
    }


def other_graphs(measured: Sequence[Measured]) -> list[str]:
    """Names of the runs whose scores do not compare with the first's: other names, or another test."""
    keys, first = ("names of entities", "names of relations", "test triples"), measured[0].parts
    return [one.run.name for one in measured[1:] if any(one.parts[key] != first[key] for key in keys)]


def differing(runs: Sequence[Finished]) -> list[tuple[str, list[str]]]:
    """Config fields in which the runs differ, each with its values by run."""
    configs = [flat(run.results["config"]) for run in runs]
    names = dict.fromkeys(name for one in configs for name in one if not name.startswith(OF_A_MACHINE))
    rows = [(name, [show(one.get(name)) for one in configs]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def cut(rows: list, first: int = FIRST) -> dict[str, Any]:
    """A long list as what is shown, what is folded, and how many are left out."""
    # One that is folded alone takes as much room as it would in the open.
    first = first if len(rows) > first + 1 else len(rows)
    return {"first": rows[:first], "rest": rows[first:MOST], "left_out": max(0, len(rows) - MOST)}
