"""What a search is asked for beside its config: flags of the command, and arguments of ``mocme_jax.search``."""

from __future__ import annotations

from mocme_jax.config import bundled_configs
from mocme_jax.config_fields import Field

OPTIONS = {
    "space": Field("full", f"a search file, or one of {', '.join(bundled_configs('search'))}"),
    "trials": Field(20, "points to try, with those tried before; the first is the config itself", low=1),
    "minutes": Field(120.0, "of training, after which no further point is begun", above=0),
    "sampler": Field(
        "random",
        "how points are drawn: at random, or by Optuna's TPE, which learns from the points so far after its first ten "
        "(needs the extra search)",
        choices=("random", "tpe"),
    ),
    "pruner": Field(
        "none",
        "which points end early: none; or, by the median rule, a point whose best dev MRR is below the median of "
        "finished points at the same epoch, from the sixth point and the second evaluation on",
        choices=("none", "median"),
    ),
}
