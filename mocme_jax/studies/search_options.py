"""Options of a search: flags of the command and arguments of ``mocme_jax.search``."""

from __future__ import annotations

from mocme_jax.config import bundled_configs
from mocme_jax.config_fields import Field

OPTIONS = {
    "space": Field("full", f"a search file, or one of {', '.join(bundled_configs('search'))}"),
    "trials": Field(
        20, "number of points to try, including those of earlier calls; the first is the config itself", low=1
    ),
    "minutes": Field(120.0, "minutes of training after which no new point is started", above=0),
    "sampler": Field(
        "random",
        "how points are drawn; random: at random; tpe: by Optuna's TPE, which learns from earlier points after the "
        "first ten (needs the extra search)",
        choices=("random", "tpe"),
    ),
    "pruner": Field(
        "none",
        "which points stop early; none: none; median: points whose best dev MRR is below the median of the finished "
        "points at the same epoch, from the sixth point and the second evaluation on",
        choices=("none", "median"),
    ),
}
