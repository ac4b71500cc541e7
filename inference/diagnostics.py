r"""Convergence diagnostics of Markov chains, on arrays (chains, draws, ...); NumPy only.

With W the mean of the chains' variances and B/n the variance of their means, the marginal variance is
V = (n-1)/n W + B/n and R-hat = sqrt(V / W). With rho_t the autocorrelation of all chains together,
rho_t = 1 - (W - mean autocovariance at t) / V, the effective sample size is m n / tau,
tau = -1 + 2 sum over t of P_t, P_t = rho_2t + rho_2t+1, summed while positive and made monotone (Geyer). Chains
are split in halves. The rank-normalised versions replace draws by the normal quantiles of their ranks, so that
they also hold where moments do not exist.

References: Vehtari, Gelman, Simpson, Carpenter, Bürkner (2021), Rank-normalization, folding, and localization;
Geyer (1992), Practical Markov chain Monte Carlo; Wichura (1988), algorithm AS 241.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray


def _prepare(x: Array, chains: int = 1) -> tuple[Array, tuple[int, ...], bool]:
    """As float (chains, draws, columns), the trailing shape, and whether there are enough chains and draws."""
    x = np.asarray(x)
    if x.ndim < 2:
        raise ValueError(f"draws must have shape (chains, draws, ...); got {x.shape}")
    enough = x.shape[0] >= chains and x.shape[1] >= 4
    return x.reshape(*x.shape[:2], -1), x.shape[2:], enough


def _columns(function: Callable[[Array], Array], x: Array, chains: int = 1) -> Array:
    """Apply a function of (chains, draws, columns); NaN for columns with NaN or too few chains or draws."""
    flat, shape, enough = _prepare(x, chains)
    out = np.full(flat.shape[2], np.nan)
    if enough:
        fine = ~np.isnan(flat).any(axis=(0, 1)) if flat.dtype.kind == "f" else np.ones(flat.shape[2], bool)
        if fine.any():
            with np.errstate(all="ignore"):
                out[fine] = function(flat[:, :, fine].astype(np.float64))
    return out.reshape(shape)[()]


def split(x: Array) -> Array:
    """Cut every chain in halves, dropping the middle draw of an odd number.

    Example:
        >>> split(np.arange(10).reshape(2, 5))[:, 0]
        array([0, 5, 3, 8])
    """
    half = x.shape[1] // 2
    return np.concatenate([x[:, :half], x[:, -half:]])


def rhat_of_moments(mean: Array, variance: Array, count: int) -> Array:
    """R-hat from the chains' means and variances, both (chains, ...), of ``count`` draws each."""
    within = variance.mean(axis=0)
    return np.sqrt((count - 1) / count + mean.var(axis=0, ddof=1) / within)


def _rhat(x: Array) -> Array:
    return rhat_of_moments(x.mean(axis=1), x.var(axis=1, ddof=1), x.shape[1])


def rhat(x: Array) -> Array:
    """Plain split R-hat.

    Args:
        x: Draws, shape (chains, draws, ...), two or more chains.

    Returns:
        Shape (...); NaN where draws are NaN, or fewer than two chains or four draws are given.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(4, 1000))
        >>> bool(abs(rhat(x) - 1.0) < 0.01)
        True
    """
    return _columns(lambda v: _rhat(split(v)), x, chains=2)


def rhat_rank(x: Array, superchains: int | None = None) -> Array:
    """Rank-normalised split R-hat, the greater of the one of the bulk and the one of the folded draws.

    Args:
        x: As in ``rhat``.
        superchains: Nested R-hat of the ranks instead, between so many groups of chains; see ``rhat_nested``.

    Returns:
        Shape (...).

    Example:
        >>> x = np.random.default_rng(0).standard_cauchy(size=(4, 1000))
        >>> bool(rhat_rank(x) < 1.01)
        True
    """

    def worst(v: Array) -> Array:
        v = split(v) if superchains is None else v
        folded = np.abs(v - np.median(v, axis=(0, 1)))
        judge = _rhat if superchains is None else lambda u: rhat_nested(u, superchains)
        return np.maximum(judge(normal_scores(v)), judge(normal_scores(folded)))

    return _columns(worst, x, chains=2)


def rhat_nested(x: Array, superchains: int) -> Array:
    """Nested R-hat, for many short chains.

    The chains are divided in order into superchains of equal size, each of which started at one point; what must
    agree are the means of the superchains. With K of them, M chains each, chain means m_km and variances s_km,
    ``B = var_k(mean_m m_km)``, ``W = mean_k(var_m m_km + mean_m s_km)`` and R-hat is ``sqrt(1 + B / W)``: it falls
    with the number of chains, where plain R-hat asks that each chain be long.

    Args:
        x: Draws, shape (chains, draws, ...).
        superchains: Number of superchains K, at least two and a divisor of the number of chains.

    Returns:
        Shape (...).

    Raises:
        ValueError: If the chains cannot be divided so.

    Reference: Margossian, Hoffman, Sountsov, Riou-Durand, Vehtari and Gelman, "Nested R-hat: assessing the convergence
    of Markov chain Monte Carlo when running many short chains" (2024).

    Example:
        >>> x = np.random.default_rng(0).normal(size=(1000, 2))
        >>> x[:500] += 0.5  # the first superchain is elsewhere
        >>> float(np.round(rhat_nested(x, 2), 3)), float(np.round(rhat_nested(x[500:], 2), 3))
        (1.034, 1.002)
    """
    x = np.asarray(x, float)
    variance = x.var(axis=1, ddof=1) if x.shape[1] > 1 else np.zeros((x.shape[0], *x.shape[2:]))
    return nested_of_moments(x.mean(axis=1), variance, superchains)


def nested_of_moments(mean: Array, variance: Array, superchains: int) -> Array:
    """Nested R-hat from the chains' means and variances, both (chains, ...), chains in the order of superchains."""
    chains = len(mean)
    if superchains < 2 or chains % superchains:
        raise ValueError(f"{chains} chains cannot be divided into {superchains} superchains of equal size, two or more")
    mean, variance = (v.reshape(superchains, chains // superchains, *v.shape[1:]) for v in (mean, variance))
    between = mean.mean(axis=1).var(axis=0, ddof=1)
    spread = mean.var(axis=1, ddof=1) if mean.shape[1] > 1 else np.zeros_like(between)
    with np.errstate(all="ignore"):
        return np.sqrt(1.0 + between / (spread + variance.mean(axis=1)).mean(axis=0))


def normal_scores(x: Array) -> Array:
    """Normal quantiles of the fractional ranks (r - 3/8) / (n + 1/4) over chains and draws; ties share a rank."""
    flat = np.ascontiguousarray(x.reshape(x.shape[0] * x.shape[1], -1).T)
    count = flat.shape[1]
    order = np.argsort(flat, axis=1)
    ranked = np.take_along_axis(flat, order, axis=1)
    table = normal_quantile((np.arange(2 * count - 1) / 2 + 1 - 0.375) / (count + 0.25))  # by first + last place
    sorted_scores = np.empty(flat.shape)
    sorted_scores[:] = table[::2]
    tied = (ranked[:, 1:] == ranked[:, :-1]).any(axis=1)
    if tied.any():
        sorted_scores[tied] = table[_ends_of_ties(ranked[tied])]
    scores = np.empty(flat.shape)
    np.put_along_axis(scores, order, sorted_scores, axis=1)
    return scores.T.reshape(x.shape)


def _ends_of_ties(ranked: Array) -> Array:
    """First plus last place of the values equal to each, in rows of sorted values."""
    count = ranked.shape[1]
    place = np.broadcast_to(np.arange(count), ranked.shape)
    new = np.ones(ranked.shape, bool)
    new[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    ends = np.ones(ranked.shape, bool)
    ends[:, :-1] = new[:, 1:]
    first = np.maximum.accumulate(np.where(new, place, 0), axis=1)
    last = np.minimum.accumulate(np.where(ends, place, count)[:, ::-1], axis=1)[:, ::-1]
    return first + last


def ess_mean(x: Array) -> Array:
    """Effective sample size for the mean, from split chains.

    Args:
        x: Draws, shape (chains, draws, ...).

    Returns:
        Shape (...); NaN where draws are NaN or fewer than four; the number of draws where all are equal.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(4, 1000))
        >>> bool(3000 < ess_mean(x) < 5000)
        True
    """
    return _columns(lambda v: _ess(split(v)), x)


def ess_bulk(x: Array) -> Array:
    """Effective sample size of the rank-normalised draws; see ``ess_mean``.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(4, 1000))
        >>> bool(np.isclose(ess_bulk(x), ess_bulk(np.exp(x))))
        True
    """
    return _columns(lambda v: _ess(normal_scores(split(v))), x)


def ess_quantile(x: Array, probability: float) -> Array:
    """Effective sample size for a quantile: that of the indicator of lying below it; see ``ess_mean``."""
    return _columns(lambda v: _ess_quantile(v, probability), x)


def ess_tail(x: Array) -> Array:
    """The smaller of the effective sample sizes for the 5% and the 95% quantile; see ``ess_mean``."""
    return _columns(lambda v: np.minimum(_ess_quantile(v, 0.05), _ess_quantile(v, 0.95)), x)


def ess_sd(x: Array) -> Array:
    """Effective sample size for the standard deviation, that of (x - mean)^2; see ``ess_mean``."""
    return _columns(lambda v: _ess(split(_squares(v))), x)


def mcse_mean(x: Array) -> Array:
    """Monte Carlo standard error of the mean.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(4, 1000))
        >>> bool(0.012 < mcse_mean(x) < 0.019)
        True
    """
    return _columns(lambda v: v.std(axis=(0, 1), ddof=1) / np.sqrt(_ess(split(v))), x)


def mcse_sd(x: Array) -> Array:
    """Monte Carlo standard error of the standard deviation, by the delta method on the variance."""

    def error(v: Array) -> Array:
        squares = _squares(v)
        variance = squares.mean(axis=(0, 1))
        spread = (squares**2).mean(axis=(0, 1)) - variance**2
        return np.sqrt(spread / _ess(split(squares)) / variance / 4)

    return _columns(error, x)


def mcse_quantile(x: Array, probability: float) -> Array:
    """Monte Carlo standard error of a quantile: half the width of its 68% interval in order statistics."""
    from scipy.special import betaincinv

    def error(v: Array) -> Array:
        size = _ess_quantile(v, probability)
        ordered = np.sort(v.reshape(-1, v.shape[2]), axis=0)
        count = len(ordered)
        a, b = size * probability + 1, size * (1 - probability) + 1
        low = np.floor(np.fmax(betaincinv(a, b, 0.1586553) * count - 1, 0)).astype(int)
        high = np.ceil(np.fmin(betaincinv(a, b, 0.8413447) * count - 1, count - 1)).astype(int)
        column = np.arange(v.shape[2])
        return (ordered[high, column] - ordered[low, column]) / 2

    return _columns(error, x)


def _squares(v: Array) -> Array:
    return (v - v.mean(axis=(0, 1))) ** 2


def _ess_quantile(v: Array, probability: float) -> Array:
    return _ess(split((v <= _quantile(v, probability)).astype(np.float64)))


def _quantile(v: Array, probability: float) -> Array:
    """Linear interpolation of order statistics (R's type 7); written out because ties decide by the last bit."""
    ordered = np.sort(v.reshape(-1, v.shape[2]), axis=0)
    count = len(ordered)
    place = count * probability + (1.0 - probability)
    k = int(np.clip(place, 1, count - 1))
    part = min(max(place - k, 0.0), 1.0)
    return (1.0 - part) * ordered[k - 1] + part * ordered[k]


def autocovariance(x: Array) -> Array:
    """Biased autocovariances along axis 1 by FFT, averaged over chains: (chains, draws, ...) to (lags, ...)."""
    count = x.shape[1]
    size = 1 << (2 * count - 1).bit_length()
    rows = np.ascontiguousarray(np.moveaxis(x - x.mean(axis=1, keepdims=True), 1, -1))
    spectrum = np.fft.rfft(rows, n=size, axis=-1)
    power = (spectrum.real**2 + spectrum.imag**2).mean(axis=0)
    return np.ascontiguousarray(np.moveaxis(np.fft.irfft(power, n=size, axis=-1)[..., :count], -1, 0)) / count


def _ess(x: Array) -> Array:
    """Effective sample size of (chains, draws, columns), without splitting."""
    chains, count, _ = x.shape
    total = chains * count
    covariance = autocovariance(x)
    within = covariance[0] * count / (count - 1)
    marginal = within * (count - 1) / count
    if chains > 1:
        marginal = marginal + x.mean(axis=1).var(axis=0, ddof=1)
    rho = 1.0 - (within - covariance) / marginal
    rho[0] = 1.0
    tau = np.maximum(_geyer(rho), 1.0 / np.log10(total))
    constant = np.ptp(x, axis=(0, 1)) < np.finfo(float).resolution
    return np.where(constant, total, total / tau)


def _geyer(rho: Array) -> Array:
    """Tau from autocorrelations (lags, columns), summed over Geyer's initial monotone sequence of pairs.

    The first pair that is not positive, or else the last pair that may be used, adds only its even lag, at half
    weight, and only when that does not make it worse: when the lag or the pair is positive.
    """
    lags, columns = rho.shape
    usable = max((lags - 2) // 2 + (lags % 2), 1)  # the last few lags are too noisy to use
    pairs = rho[: 2 * usable].reshape(usable, 2, columns)
    sums = pairs.sum(axis=1)
    negative = ~(sums > 0.0)
    stop = np.where(negative.any(axis=0), negative.argmax(axis=0), usable - 1)
    k = np.arange(usable)[:, None]
    inside = k < stop
    monotone = np.minimum.accumulate(np.where(inside, sums, np.inf), axis=0)
    tau = -1.0 + 2.0 * np.where(inside, monotone, 0.0).sum(axis=0)
    edge, total = (np.take_along_axis(v, stop[None], axis=0)[0] for v in (pairs[:, 0], sums))
    return tau + np.where((edge > 0.0) | (total >= 0.0), edge, 0.0)


# Wichura's minimax rational approximations, highest power first: the middle, |p - 1/2| <= 0.425; then in
# r = sqrt(-log min(p, 1 - p)) up to r = 5; then beyond. Relative error about 1e-16.
_MIDDLE = (
    (2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
     13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608),
    (5226.495278852545925, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
     5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0),
)  # fmt: skip
_NEAR = (
    (7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177, 1.27045825245236838258,
     3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959, 1.42343711074968357734),
    (1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459,
     0.68976733498510000455, 1.6763848301838038494, 2.05319162663775882187, 1.0),
)  # fmt: skip
_FAR = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 0.0012426609473880784386, 0.026532189526576123093,
     0.29656057182850489123, 1.7848265399172913358, 5.4637849111641143699, 6.6579046435011037772),
    (2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5, 7.868691311456132591e-4,
     0.0148753612908506148525, 0.13692988092273580531, 0.59983220655588793769, 1.0),
)  # fmt: skip


def normal_quantile(p: Array) -> Array:
    """Inverse of the standard normal distribution function (Wichura's AS 241), without SciPy.

    Example:
        >>> float(np.round(normal_quantile(np.array(0.975)), 9))
        1.959963985
    """
    p = np.asarray(p, np.float64)
    q = p - 0.5
    with np.errstate(all="ignore"):
        r = np.sqrt(-np.log(np.minimum(p, 1.0 - p)))
        inner = 0.180625 - q * q
        middle = q * np.polyval(_MIDDLE[0], inner) / np.polyval(_MIDDLE[1], inner)
        near = np.polyval(_NEAR[0], r - 1.6) / np.polyval(_NEAR[1], r - 1.6)
        far = np.polyval(_FAR[0], r - 5.0) / np.polyval(_FAR[1], r - 5.0)
        tail = np.where(np.isinf(r), np.inf, np.where(r <= 5.0, near, far))
    return np.where(np.abs(q) <= 0.425, middle, np.sign(q) * tail)
