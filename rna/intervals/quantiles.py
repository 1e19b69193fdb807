"""The quantiles of 95 % intervals, for every module that gives one."""

from functools import cache

LEVEL = 0.95
Z_95 = 1.959964  # of the normal distribution, two-sided


@cache
def t_95(degrees: int | float) -> float:
    """The two-sided 95 % quantile of Student's t with this many degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.5 + LEVEL / 2))
