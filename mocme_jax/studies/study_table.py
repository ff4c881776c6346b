"""A study's table: mean and deviation over the seeds of each cell, and its difference from the reference."""

from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console

from mocme_jax.studies.finished_cells import Rows
from mocme_jax.studies.paired_test import paired_difference
from mocme_jax.training.logs.progress import results_table


def make_table(rows: Rows, cells: Mapping[str, Mapping], seeds: Sequence[int], clean: np.ndarray) -> dict:
    """The table of what is finished, for JSON; the first of the cells is the reference.

    Differences are over the seeds that both have, on test, and where train holds some of its rows, on the others too.
    A seed that diverged before it was evaluated counts with a dev MRR of 0; it has no score on test.

    ``cells`` gives the changes of each cell, ``clean`` (bool ``[T]``) tells the test rows that train does not hold.
    """
    reference = next(iter(cells))
    finished = {name: rows.of(name, changes) for name, changes in cells.items()}
    finished = {name: {s: row for s, row in of.items() if s in seeds} for name, of in finished.items()}
    scored = {name: {s: row for s, row in of.items() if "test" in row} for name, of in finished.items()}
    table = []
    for name, of in finished.items():
        if not of:
            continue
        line = {"cell": name, "seeds": len(of), "dev": spread([row["dev"]["mrr"] for row in of.values()])}
        if diverged := sum("diverged" in row for row in of.values()):
            line["diverged"] = diverged
        if tests := list(scored[name].values()):
            line["test"] = spread([row["test"]["mrr"] for row in tests])
            if all(row["clean"]["count"] for row in tests):
                line["clean"] = spread([row["clean"]["mrr"] for row in tests])
            line |= {f"hits@{k}": spread([row["test"][f"hits@{k}"] for row in tests]) for k in (1, 10)}
            shared = sorted(scored[name].keys() & scored[reference].keys())
            line |= _difference(rows, name, reference, shared, np.ones_like(clean))
            if not clean.all() and clean.sum() > 1:
                found = _difference(rows, name, reference, shared, clean)
                line |= {f"clean_{key}": value for key, value in found.items()}
        line["seconds"] = sum(row["seconds"] for row in of.values())
        table.append(line)
    return {"reference": reference, "rows": table}


def print_table(table: dict, title: str, console: Console) -> None:
    """Prints the table: differences in test MRR from the reference, with their significance ``p``.

    Where train holds some of test, the same for its clean rows follows as a table of its own.
    """
    lines, clean = [], []
    for row in table["rows"]:
        line = {"cell": row["cell"], "seeds": row["seeds"], "dev MRR": _words(row["dev"])}
        if any("diverged" in other for other in table["rows"]):
            line["diverged"] = row.get("diverged", 0)
        if "test" in row:
            line |= {"test MRR": _words(row["test"]), "Hits@1": f"{row['hits@1']['mean']:.3f}"}
            line |= {"Hits@10": f"{row['hits@10']['mean']:.3f}"}
        if row["cell"] != table["reference"]:
            line |= _told(row.get("difference"), row.get("p"))
        line["minutes"] = f"{row['seconds'] / 60:.1f}"
        lines.append(line)
        if "clean_p" in row:
            line = {"cell": row["cell"], "seeds": row["seeds"], "test MRR": _words(row["clean"])}
            if row["cell"] != table["reference"]:
                line |= _told(row["clean_difference"], row["clean_p"])
            clean.append(line)
    results_table(lines, title=title, console=console)
    if clean:
        results_table(clean, title=f"{title}, test's clean rows", console=console)
        console.print("clean rows: test triples that are not in train")
    console.print(
        f"means ± standard deviation over seeds; difference: test MRR minus that of {table['reference']}; p: "
        "p-value of a paired test of the difference; minutes: all seeds together"
    )


def _told(difference: float | None, p: float | None) -> dict[str, str]:
    return {} if difference is None else {"difference": f"{difference:+.4f}", "p": _chance(p)}


def _difference(rows: Rows, name: str, reference: str, seeds: list[int], counted: np.ndarray) -> dict:
    """On the test rows ``counted [T]``."""
    both = [rows.ranks(cell, seeds, 2 * len(counted)) for cell in (name, reference)] if seeds else [None]
    if name == reference or any(ranks is None for ranks in both):
        return {"difference": 0.0 if name == reference else None, "p": None}
    found = paired_difference(*(ranks[:, np.tile(counted, 2)] for ranks in both))
    return {"difference": found.mean, "p": found.p}


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """``mean`` and standard ``deviation``, which one value has not."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "deviation": deviation}


def _chance(p: float | None) -> str:
    return "-" if p is None else f"{p:.3f}" if p >= 0.001 else "<.001"


def _words(spread: Mapping[str, float | None]) -> str:
    deviation = spread["deviation"]
    return f"{spread['mean']:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")
