"""Draws against densities, two-sided, for any distribution: what test_goodness runs, and an instance of every family.

Continuous, of any shape. With u the unconstrained image of a draw and p_u its density (log-determinant included), every
normalised density q that is narrower than p_u has

    E[q(u) / p_u(u)] = 1,

whatever the family. Normals q around several points test the density's shape and its normalising constant at once:
where draws are too many or too few by a share s in the region of q, the mean is off by s. Discrete, of any shape:
Pearson's test of the counts of all values whose expected count is at least 8, the others in one cell of the remaining
probability. Laws with an atom at zero: the atom by its count, the rest by the first test.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats as st

from ppl import dist

DRAWS, CENTRES = 20_000, 6
C = np.array([[1.0, 0.3, -0.2], [0.3, 2.0, 0.5], [-0.2, 0.5, 1.5]])
L = np.linalg.cholesky(C)
ROWS = np.array([[1.2, 0.0], [-0.4, 0.7]])


def p_value(d: Any, seed: int = 0, draws: int = DRAWS) -> float:
    """Smallest p-value of the family's tests, corrected for their number (Bonferroni)."""
    keys = jax.random.split(jax.random.key(seed), 2)
    x = np.asarray(jax.jit(lambda key: d.sample(key, (draws,)))(keys[0]))
    assert np.all(np.asarray(jax.vmap(lambda y: jnp.all(d.support(y)))(x))), "a draw lies outside of the support"
    atom = atom_of(d)
    if atom is not None:
        zero = float(np.exp(d.log_prob(jnp.zeros(()))))
        count = int((x == 0).sum())
        rest = continuous(d, x[x != 0], 1.0 - zero, seed)
        return min(1.0, 2 * min(st.binomtest(count, draws, zero).pvalue, rest))
    if d.support.is_discrete:
        return counts(d, x)
    return continuous(d, x, 1.0, seed)


def atom_of(d: Any) -> bool | None:
    """Whether a continuous law has a point mass at zero."""
    return True if type(d).__name__ in ("HurdleGamma", "HurdleLogNormal") else None


def counts(d: Any, x: np.ndarray) -> float:
    """Pearson's test of all values that are common enough."""
    values, observed = np.unique(x.reshape(len(x), -1), axis=0, return_counts=True)
    values = values.reshape(-1, *x.shape[1:]).astype(x.dtype)
    probability = np.exp(np.asarray(jax.vmap(lambda v: jnp.sum(d.log_prob(v)))(values), np.float64))
    common = probability * len(x) >= 8
    rest = 1.0 - probability[common].sum()
    assert rest > -1e-6, f"the probabilities of the values seen add up to {1 - rest}"
    expected, seen = probability[common] * len(x), observed[common]
    statistic = float(np.sum((seen - expected) ** 2 / expected))
    cells = int(common.sum())
    if rest * len(x) >= 8:
        statistic, cells = statistic + (observed[~common].sum() - rest * len(x)) ** 2 / (rest * len(x)), cells + 1
    else:
        assert observed[~common].sum() <= 40, "draws where there is no probability"
    return float(st.chi2.sf(statistic, max(cells - 1, 1)))


def free(d: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unconstrained images of draws, flattened, and their log density there."""
    if d.support is dist.constraints.sphere:
        return angles(d, x)
    t = dist.biject_to(d.support)

    def one(y: Any) -> Any:
        u = t.inv(y)
        return jnp.ravel(u), jnp.sum(d.log_prob(y)) + jnp.sum(t.log_abs_det_jacobian(u, y))

    u, value = jax.jit(jax.vmap(one))(x)
    return np.asarray(u, np.float64), np.asarray(value, np.float64)


def angles(d: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Directions by their angles, mapped to the line: azimuth, and on the sphere the cosine of the polar angle."""
    value = np.asarray(jax.vmap(d.log_prob)(x), np.float64)
    shares = [(np.arctan2(x[:, 1], x[:, 0]) + np.pi) / (2 * np.pi)] + [0.5 * (x[:, 2] + 1.0)] * (x.shape[1] - 2)
    widths = [2 * np.pi, 2.0][: len(shares)]
    for share, width in zip(shares, widths, strict=True):
        value = value + np.log(width * share * (1 - share))
    return np.stack([np.log(share) - np.log1p(-share) for share in shares], axis=1), value


def continuous(d: Any, x: np.ndarray, mass: float, seed: int) -> float:
    """The reciprocal importance test around several centres."""
    u, value = free(d, x)
    keep = np.isfinite(u).all(axis=1)
    assert keep.mean() > 0.999, "draws on the boundary of the support"
    u, value = u[keep], value[keep] - np.log(mass)
    dim = u.shape[1]
    low, high = np.percentile(u, [16, 84], axis=0)
    scale = 0.5 * (high - low)
    standard = (u - np.median(u, axis=0)) / scale
    inner = np.clip(standard, -5, 5)
    factor = np.linalg.cholesky(np.atleast_2d(np.cov(inner, rowvar=False)) + 1e-9 * np.eye(dim))
    width = 0.35 if dim < 3 else 0.6
    rng, tests = np.random.default_rng(seed + 1), []
    for index in rng.choice(len(u), CENTRES, replace=False):
        white = np.linalg.solve(factor, (standard - standard[index]).T) / width
        log_q = -0.5 * np.sum(white**2, axis=0) - 0.5 * dim * np.log(2 * np.pi)
        log_q -= np.sum(np.log(np.diagonal(factor))) + dim * np.log(width) + np.sum(np.log(scale))
        use = np.arange(len(u)) != index
        ratio = np.exp(log_q - value)[use]
        if np.sum(ratio) ** 2 / np.sum(ratio**2) < 100:  # a lonely centre: no normal limit
            continue
        z = (ratio.mean() - 1.0) / (ratio.std() / np.sqrt(len(ratio)))
        tests.append(2 * st.norm.sf(abs(z)))
    assert tests, "every centre was lonely"
    return float(min(1.0, len(tests) * min(tests)))


INSTANCES: dict[str, Any] = {
    "AsymmetricLaplace": lambda: dist.AsymmetricLaplace(1.0, 2.0, 0.7),
    "AsymmetricLaplaceQuantile": lambda: dist.AsymmetricLaplaceQuantile(1.0, 2.0, 0.3),
    "BernoulliLogits": lambda: dist.BernoulliLogits(-0.7),
    "BernoulliProbs": lambda: dist.BernoulliProbs(0.2),
    "Beta": lambda: dist.Beta(0.7, 3.0),
    "BetaBinomial": lambda: dist.BetaBinomial(0.7, 3.0, 12),
    "BetaNegativeBinomial": lambda: dist.BetaNegativeBinomial(4.0, 3.0, 4.0),
    "BetaProportion": lambda: dist.BetaProportion(0.3, 5.0),
    "BinomialLogits": lambda: dist.BinomialLogits(-0.7, 9),
    "BinomialProbs": lambda: dist.BinomialProbs(0.3, 90),
    "CAR": lambda: dist.CAR(
        np.zeros(3), 0.5, 2.0, np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]), is_sparse=False
    ),
    "CategoricalLogits": lambda: dist.CategoricalLogits(np.array([0.0, 2.0, -1.0])),
    "CategoricalProbs": lambda: dist.CategoricalProbs(np.array([0.1, 0.2, 0.7])),
    "Cauchy": lambda: dist.Cauchy(1.0, 2.0),
    "Chi2": lambda: dist.Chi2(3.0),
    "CirculantNormal": lambda: dist.CirculantNormal(np.arange(4.0), np.array([2.0, 0.5, 0.2, 0.5])),
    "Dagum": lambda: dist.Dagum(2.0, 1.5, 3.0),
    "Dirichlet": lambda: dist.Dirichlet(np.array([0.7, 2.0, 4.0])),
    "DirichletMultinomial": lambda: dist.DirichletMultinomial(np.array([0.7, 2.0, 4.0]), 5),
    "DiscreteUniform": lambda: dist.DiscreteUniform(2, 5),
    "DoublyTruncatedPowerLaw": lambda: dist.DoublyTruncatedPowerLaw(-1.5, 0.5, 3.0),
    "EulerMaruyama": lambda: dist.EulerMaruyama(
        np.linspace(0.0, 0.5, 4), lambda x, t: (-x, 0.5 + 0.0 * x), dist.Normal(0.0, 1.0)
    ),
    "Exponential": lambda: dist.Exponential(0.5),
    "FoldedDistribution": lambda: dist.FoldedDistribution(dist.Normal(0.7, 1.0)),
    "Gamma": lambda: dist.Gamma(0.7, 0.5),
    "GammaPoisson": lambda: dist.GammaPoisson(2.0, 0.5),
    "GaussianCopula": lambda: dist.GaussianCopula(
        dist.Exponential(np.array([2.0, 0.5])), np.array([[1.0, 0.5], [0.5, 1.0]])
    ),
    "GaussianRandomWalk": lambda: dist.GaussianRandomWalk(0.5, 4),
    "GaussianStateSpace": lambda: dist.GaussianStateSpace(3, 0.5 * ROWS, scale_tril=np.eye(2)),
    "GeometricLogits": lambda: dist.GeometricLogits(-0.5),
    "GeometricProbs": lambda: dist.GeometricProbs(0.3),
    "Gompertz": lambda: dist.Gompertz(0.5, 2.0),
    "Gumbel": lambda: dist.Gumbel(1.0, 2.0),
    "HalfCauchy": lambda: dist.HalfCauchy(2.0),
    "HalfNormal": lambda: dist.HalfNormal(2.0),
    "HurdleGamma": lambda: dist.HurdleGamma(0.3, 2.0, 1.0),
    "HurdleLogNormal": lambda: dist.HurdleLogNormal(0.3, 0.3, 0.7),
    "HurdleNegativeBinomial2": lambda: dist.HurdleNegativeBinomial2(0.3, 3.0, 2.0),
    "HurdlePoisson": lambda: dist.HurdlePoisson(0.3, 2.0),
    "InverseGamma": lambda: dist.InverseGamma(2.5, 3.0),
    "InverseWishart": lambda: dist.InverseWishart(6.0, scale_matrix=C[:2, :2]),
    "InverseWishartCholesky": lambda: dist.InverseWishartCholesky(6.0, scale_matrix=C[:2, :2]),
    "Kumaraswamy": lambda: dist.Kumaraswamy(0.8, 3.0),
    "LKJ": lambda: dist.LKJ(3, 0.7),
    "LKJCholesky": lambda: dist.LKJCholesky(3, 2.5),
    "Laplace": lambda: dist.Laplace(1.0, 2.0),
    "LeftTruncatedDistribution": lambda: dist.LeftTruncatedDistribution(dist.Normal(0.0, 1.0), low=0.5),
    "LeftTruncatedGamma": lambda: dist.LeftTruncatedGamma(dist.Gamma(2.0, 1.0), low=1.0),
    "Levy": lambda: dist.Levy(1.0, 2.0),
    "LogNormal": lambda: dist.LogNormal(1.0, 0.5),
    "LogUniform": lambda: dist.LogUniform(0.5, 4.0),
    "Logistic": lambda: dist.Logistic(1.0, 2.0),
    "LowRankMultivariateNormal": lambda: dist.LowRankMultivariateNormal(
        np.arange(3.0), np.array([[1.0], [0.5], [-1.0]]), np.array([0.5, 1.0, 0.2])
    ),
    "LowerTruncatedPowerLaw": lambda: dist.LowerTruncatedPowerLaw(-2.5, 1.5),
    "MatrixNormal": lambda: dist.MatrixNormal(np.zeros((3, 2)), L, np.array([[1.0, 0.0], [0.6, 0.7]])),
    "MixtureGeneral": lambda: dist.MixtureGeneral(
        dist.Categorical(np.array([0.3, 0.7])), [dist.Normal(-2.0, 0.5), dist.Normal(1.0, 1.0)]
    ),
    "MixtureSameFamily": lambda: dist.MixtureSameFamily(
        dist.Categorical(np.array([0.3, 0.7])), dist.Gamma(np.array([1.0, 9.0]), 2.0)
    ),
    "MultinomialLogits": lambda: dist.MultinomialLogits(np.array([0.0, 1.0, -1.0]), 5),
    "MultinomialProbs": lambda: dist.MultinomialProbs(np.array([0.2, 0.5, 0.3]), 6),
    "MultivariateNormal": lambda: dist.MultivariateNormal(np.arange(3.0), C),
    "MultivariateStudentT": lambda: dist.MultivariateStudentT(4.0, np.arange(3.0), L),
    "NegativeBinomial2": lambda: dist.NegativeBinomial2(3.0, 2.0),
    "NegativeBinomialLogits": lambda: dist.NegativeBinomialLogits(2.5, -0.3),
    "NegativeBinomialProbs": lambda: dist.NegativeBinomialProbs(2.5, 0.4),
    "Normal": lambda: dist.Normal(1.0, 2.0),
    "OrderedLogistic": lambda: dist.OrderedLogistic(0.3, np.array([-1.0, 0.5, 1.5])),
    "Pareto": lambda: dist.Pareto(1.0, 3.0),
    "Poisson": lambda: dist.Poisson(30.0),
    "ProjectedNormal": lambda: dist.ProjectedNormal(np.array([0.5, -1.0, 0.3])),
    "RelaxedBernoulliLogits": lambda: dist.RelaxedBernoulliLogits(0.7, 0.4),
    "RightTruncatedDistribution": lambda: dist.RightTruncatedDistribution(dist.Normal(0.0, 1.0), high=0.5),
    "RightTruncatedGamma": lambda: dist.RightTruncatedGamma(dist.Gamma(2.0, 1.0), high=1.5),
    "SineBivariateVonMises": lambda: dist.SineBivariateVonMises(0.3, -0.5, 2.0, 1.0, correlation=0.8),
    "SineSkewed": lambda: dist.SineSkewed(dist.VonMises(np.array([0.3]), np.array([2.0])).to_event(1), np.array([0.5])),
    "SoftLaplace": lambda: dist.SoftLaplace(1.0, 2.0),
    "StudentT": lambda: dist.StudentT(3.0, 1.0, 2.0),
    "TransformedDistribution": lambda: dist.TransformedDistribution(
        dist.Normal(0.0, 1.0), [dist.transforms.AffineTransform(1.0, -2.0), dist.transforms.SoftplusTransform()]
    ),
    "Truncated": lambda: dist.truncated(dist.StudentT(3.0, 0.0, 1.0), low=0.5, high=4.0),
    "TruncatedCauchy": lambda: dist.TruncatedCauchy(0.0, 1.0, low=-0.5),
    "TruncatedNormal": lambda: dist.TruncatedNormal(0.0, 1.0, low=3.0, high=9.0),
    "TruncatedPolyaGamma": lambda: dist.TruncatedPolyaGamma(),
    "TwoSidedTruncatedDistribution": lambda: dist.TwoSidedTruncatedDistribution(dist.Normal(0.0, 1.0), -0.5, 2.0),
    "TwoSidedTruncatedGamma": lambda: dist.TwoSidedTruncatedGamma(dist.Gamma(2.0, 1.0), 0.5, 3.0),
    "Uniform": lambda: dist.Uniform(-1.0, 5.0),
    "VonMises": lambda: dist.VonMises(0.5, 2.0),
    "Weibull": lambda: dist.Weibull(2.0, 1.5),
    "Wishart": lambda: dist.Wishart(5.0, scale_matrix=C[:2, :2]),
    "WishartCholesky": lambda: dist.WishartCholesky(5.0, scale_matrix=C[:2, :2]),
    "ZeroInflatedNegativeBinomial2": lambda: dist.ZeroInflatedNegativeBinomial2(3.0, 2.0, gate=0.3),
    "ZeroInflatedPoisson": lambda: dist.ZeroInflatedPoisson(0.3, 2.0),
    "ZeroInflatedProbs": lambda: dist.ZeroInflatedDistribution(dist.Binomial(5, 0.6), gate=0.2),
    "ZeroInflatedLogits": lambda: dist.ZeroInflatedDistribution(dist.Binomial(5, 0.6), gate_logits=-1.0),
    "HurdleProbs": lambda: dist.HurdleDistribution(dist.Poisson(2.0), gate=0.2),
    "HurdleLogits": lambda: dist.HurdleDistribution(dist.Poisson(2.0), gate_logits=-1.0),
    "ZeroSumNormal": lambda: dist.ZeroSumNormal(0.7, (4,)),
    "mixture": lambda: dist.mixture(np.array([0.3, 0.7]), [dist.Normal(0.0, 1.0), dist.StudentT(3.0, 2.0, 0.5)]),
    "truncated_poisson": lambda: dist.truncated(dist.Poisson(3.0), low=1),
}
