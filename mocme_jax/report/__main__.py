"""Writes a report on a run, several runs or a study as one HTML page, without network access or scripts.

  mocme report --workdir=runs/atlas --baseline=runs/structure
      one run: scores beside the structure alone, answers, what each modality adds, learning curves, calibration
  mocme report --workdir=runs/atlas,runs/structure --out=FILE.html
      several runs side by side; the run without features is the baseline
  mocme report --workdir=DIR
      a study, if DIR contains study.json

Needs the extra report.
"""

import sys
from pathlib import Path

from mocme_jax.command_line import run
from mocme_jax.config_fields import Field, a_place
from mocme_jax.flags import OF_A_RUN, parse_options

OPTIONS = {
    **OF_A_RUN,
    "workdir": Field(
        None, "folder of a run or a study, or several folders of runs: DIR,DIR", kind=tuple, element=str, place=True
    ),
    "out": a_place("file to write; none: report.html in the first folder"),
    "baseline": a_place("folder of a run of the structure alone, to compare with"),
    "entities": Field((), "names or ids of entities whose answers are shown, such as Paris,17; none: some of test"),
    "images": a_place("folder of pictures named after entities, as for prepare (extra: images)"),
    "audio": a_place("folder of sounds, or of films whose sound track is used (extras: audio, video)"),
    "video": a_place("folder of films; one frame of each is shown (extra: video)"),
}


def main() -> None:
    """Reads the flags, then imports JAX and writes."""
    options = parse_options(sys.argv[1:], __doc__, OPTIONS, required=("workdir",))
    options |= {name: options[name] and Path(options[name]) for name in ("out", "baseline", "images", "audio", "video")}
    from mocme_jax.report.html_page import check_extra

    check_extra()
    from mocme_jax.report.report_writer import write_report
    from mocme_jax.training.logs.progress import make_console

    console = make_console()
    path = write_report([Path(folder) for folder in options.pop("workdir")], **options, notify=console.print)
    console.print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    run(main)
