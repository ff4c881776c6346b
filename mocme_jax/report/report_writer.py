"""Writes the report of a folder or several."""

from collections.abc import Callable, Sequence
from pathlib import Path

from mocme_jax.data.features.entity_files import FOLDERS
from mocme_jax.errors import UserError
from mocme_jax.report.entity_media import EntityMedia
from mocme_jax.report.finished_run import Finished, read_finished
from mocme_jax.report.html_page import render, write_page
from mocme_jax.report.run_measurements import Measured, measure
from mocme_jax.report.runs_page import other_graphs, runs_context
from mocme_jax.report.study_page import study_context
from mocme_jax.report.study_reading import is_study, read_study
from mocme_jax.serving.name_lookup import Lookup

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
    studies = [folder for folder in workdirs if is_study(folder)]
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

    def check(names: Lookup) -> None:
        names.ids(entities)
        EntityMedia(folders, names.names)

    def measured(run: Finished) -> tuple[Finished, Measured]:
        places = dict(data_dir=data_dir, features_dir=features_dir)
        # Entities and their files are shown with the answers of this run.
        asked = dict(check=check) if run is found[0] else {}
        return run, measure(run.workdir, **places, notify=notify, **asked)

    shown = [measured(run) for run in found]
    if base is not None:
        pair = measured(base)
        if other_graphs([shown[0], pair]):
            raise UserError(f"--baseline={baseline}: its names or test triples differ from those of {workdirs[0]}")
    else:
        pair = next((pair for pair in shown if pair[0].is_structure_alone), None) if len(shown) > 1 else None
    media = EntityMedia(folders, shown[0][1].model.entities.names)
    context = runs_context(shown, pair, entities=entities, media=media, notify=notify)
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
