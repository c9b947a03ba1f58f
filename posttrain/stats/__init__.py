"""Statistics: intervals of what was measured, and tests that hold however often one looks."""

from posttrain.stats.anytime import STAKES, MeanTest, likeliest_beginning, log_growth, upper_bound
from posttrain.stats.intervals import (
    FEW_TASKS,
    Estimate,
    Transform,
    bootstrap_mean,
    clustered_share,
    difference,
    estimate,
    is_binary,
    paired_bootstrap,
    pass_at_k,
    share,
    shown,
    wilson,
)
from posttrain.stats.ranks import spearman

__all__ = [
    "FEW_TASKS",
    "STAKES",
    "Estimate",
    "MeanTest",
    "Transform",
    "bootstrap_mean",
    "clustered_share",
    "difference",
    "estimate",
    "is_binary",
    "likeliest_beginning",
    "log_growth",
    "paired_bootstrap",
    "pass_at_k",
    "share",
    "shown",
    "spearman",
    "upper_bound",
    "wilson",
]
