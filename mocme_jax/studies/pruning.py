"""The median rule: which points of a search end early, because they are worse than others were at the same epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# [epoch, dev MRR] for each evaluation of a training, as a row holds it.
Curve = Sequence[Sequence[float]]

# No point is pruned before so many have finished, nor at the first evaluations, which say little of the last.
START_UP, WARM_UP = 5, 1


def why_pruned(curve: Curve, finished: Sequence[Curve]) -> str | None:
    """Why a training is to end after its latest evaluation, or None if it is to go on.

    As Optuna's ``MedianPruner`` has it: the best dev MRR so far is below the median of what finished points had at the
    same epoch.
    """
    epoch, best = curve[-1][0], max(mrr for _, mrr in curve)
    others = [mrr for other in finished for its_epoch, mrr in other if its_epoch == epoch]
    if len(finished) < START_UP or len(curve) <= WARM_UP or not others:
        return None
    median = float(np.median(others))
    if best >= median:
        return None
    of = f"{len(others)} finished point{'s' if len(others) > 1 else ''}"
    return f"its best dev MRR, {best:.4f}, is below {median:.4f}, the median of {of} at this epoch"
