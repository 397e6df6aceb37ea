"""Confidence intervals and tests for the whole package.

All functions take one value for each item (a problem, a text, a trace), so that comparisons stay paired by item. The
statistics of the gap between two models are in ``probe.hybrid``.
"""

from probe.statistics.entropy import entropy_bits as entropy_bits
from probe.statistics.intervals import (
    LEVEL as LEVEL,
    RESAMPLES as RESAMPLES,
    Grades as Grades,
    Interval as Interval,
    Statistic as Statistic,
    bootstrap as bootstrap,
    column_intervals as column_intervals,
    independent_difference as independent_difference,
    interval_ends as interval_ends,
    mean_interval as mean_interval,
    pass_at as pass_at,
    score_interval as score_interval,
    scores as scores,
    share_difference as share_difference,
    share_interval as share_interval,
)
from probe.statistics.p_values import (
    holm as holm,
    paired_permutation as paired_permutation,
    sign_flips as sign_flips,
    write_p as write_p,
)
