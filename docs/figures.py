"""Writes the tables of figures into the pages, from the studies and from measured.json.

python docs/figures.py            writes the tables
python docs/figures.py --check    changes nothing; status 1 if a page differs, or states an MRR that was not measured

A table stands between the lines ``<!-- figures: NAME -->`` and ``<!-- end of figures -->``.
"""

import json
import re
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
PAGES = [DOCS.parent / "README.md", *sorted(DOCS.glob("*/*.md"))]
BLOCK = re.compile(r"(<!-- figures: ([\w-]+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)
# Pages whose numbers of three digits must all be in a study or in measured.json.
HELD_TO_FIGURES = ("README.md", "results.md")
NUMBER = re.compile(r"(?<![\d.])\.\d{2,3}(?: ± \.\d{2})?(?!\d)")


def study(name: str) -> list[dict]:
    """The rows of a finished study's table."""
    return json.loads((DOCS / "studies" / name / "table.json").read_text(encoding="utf-8"))["rows"]


def measured() -> dict:
    """Figures that are in no study."""
    return json.loads((DOCS / "measured.json").read_text(encoding="utf-8"))


def short(value: float, digits: int = 3) -> str:
    """A number below 1 without its zero: .839."""
    return f"{value:.{digits}f}".replace("0.", ".", 1)


def spread(value: dict) -> str:
    """Mean and standard deviation over seeds; of one seed, its value."""
    if value["deviation"] is None:
        return short(value["mean"])
    return f"{short(value['mean'])} ± {short(value['deviation'])}"


def p_value(p: float | None) -> str:
    """As papers print it."""
    return "" if p is None else "<.001" if p < 0.001 else short(p)


def study_table(name: str) -> tuple[list[str], list[list[str]]]:
    """The whole table of a study."""
    columns = ["variant", "dev MRR", "test MRR", "Hits@1", "Hits@10", "difference", "p"]
    rows = []
    for row in study(name):
        scores = [spread(row["dev"]), spread(row["test"]), short(row["hits@1"]["mean"]), short(row["hits@10"]["mean"])]
        sign = "−" if row["difference"] < 0 else "+"
        difference = sign + short(abs(row["difference"])) if row["difference"] else ""
        rows.append([row["cell"], *scores, difference, p_value(row["p"])])
    return columns, rows


def table(name: str) -> str:
    """One table in Markdown.

    Raises:
      KeyError: there are no figures of this name.
    """
    if (DOCS / "studies" / name / "table.json").exists():
        columns, rows = study_table(name)
    else:
        columns, rows = measured()[name]["columns"], measured()[name]["rows"]
    # A mean stays on one line with its deviation.
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines).replace(" ± ", "\u00a0±\u00a0")


def known() -> set[str]:
    """Every number that a page may state."""
    numbers = set(NUMBER.findall(json.dumps(measured(), ensure_ascii=False)))
    for path in DOCS.glob("studies/*/table.json"):
        for row in study(path.parent.name):
            keys = ("dev", "test", "hits@1", "hits@10")
            values = [row[key][part] or 0.0 for key in keys for part in ("mean", "deviation")]
            values += [abs(row["difference"]), row["p"] or 0.0]
            numbers |= {short(value, digits) for value in values for digits in (2, 3)}
            numbers |= {spread(row["dev"]), spread(row["test"])}
    return numbers


def main() -> int:
    """Writes the tables, or with ``--check`` tells what differs."""
    check, wrong, numbers = "--check" in sys.argv[1:], [], known()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        new = BLOCK.sub(lambda match: match[1] + table(match[2]) + match[3], text)
        if new != text:
            wrong.append(f"{page.name}: a table differs; run python docs/figures.py")
            if not check:
                page.write_text(new, encoding="utf-8")
        if page.name in HELD_TO_FIGURES:
            prose = BLOCK.sub("", text)
            wrong += [
                f"{page.name}: {number} is in no study" for number in NUMBER.findall(prose) if number not in numbers
            ]
    if check and wrong:
        print(*wrong, sep="\n", file=sys.stderr)
    return int(check and bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
