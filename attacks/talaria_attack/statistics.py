"""Exact intervals, an exact two-sample test and Holm's correction. No approximation by a normal distribution."""
import math


def _log_choose(n, k):
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _at_most(k, n, p):
    """P[Binomial(n, p) <= k]."""
    if p <= 0 or k >= n:
        return 1.0
    if p >= 1:
        return 0.0
    a, b = math.log(p), math.log1p(-p)
    return min(1.0, math.fsum(math.exp(_log_choose(n, i) + i * a + (n - i) * b) for i in range(k + 1)))


def _root(decreasing):
    """p in [0, 1] where a decreasing function of p crosses zero."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if decreasing(middle) > 0 else (low, middle)
    return (low + high) / 2


def interval(hits, n, alpha):
    """Clopper and Pearson's: covers the true share with probability 1 - alpha or more."""
    if n == 0:
        return 0.0, 1.0
    upper = 1.0 if hits == n else _root(lambda p: _at_most(hits, n, p) - alpha / 2)
    # P[X >= hits] = P[n - X <= n - hits], with 1 - p in p's place
    lower = 0.0 if hits == 0 else 1 - _root(lambda p: _at_most(n - hits, n, p) - alpha / 2)
    return lower, upper


def differs(hits_a, n_a, hits_b, n_b):
    """Fisher's exact test, two-sided: the p-value of equal shares."""
    hits, total = hits_a + hits_b, n_a + n_b

    def log_p(k):
        return _log_choose(n_a, k) + _log_choose(n_b, hits - k) - _log_choose(total, hits)

    observed = log_p(hits_a)
    span = range(max(0, hits - n_b), min(n_a, hits) + 1)
    return min(1.0, math.fsum(math.exp(v) for v in map(log_p, span) if v <= observed + 1e-9))


def holm(p_values):
    """Holm's adjusted p-values, in the same order: reject where they are at most the level of the whole family."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, worst = [1.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = worst
    return adjusted
