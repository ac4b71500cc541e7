"""Measure nutpie on PyMC models (numba backend). ``--config nutpie-metric-chains``, metric ``default`` or ``lowrank``.

Four chains of 400 + 1000 iterations (nutpie's own default of warm-up), one thread, float64. A cold run contains PyMC's
import, the model's construction and numba's compilation.
"""

from __future__ import annotations

import time

START = time.perf_counter()

import numpy as np  # noqa: E402
import nutpie  # noqa: E402
import pymc as pm  # noqa: E402
import pytensor  # noqa: E402
import pytensor.tensor as pt  # noqa: E402

from benchmarks.posteriordb import pack  # noqa: E402
from benchmarks.workers import common  # noqa: E402
from benchmarks.workers.arguments import ARGUMENTS  # noqa: E402


def eight_schools(sigma, y):
    mu, tau = pm.Normal("mu", 0.0, 5.0), pm.HalfCauchy("tau", 5.0)
    t = pm.Normal("t", 0.0, 1.0, shape=len(y))
    pm.Normal("y", pm.Deterministic("theta", mu + tau * t), sigma, observed=y)


def radon(county, log_uppm, floor, counties, y):
    sigma_alpha, sigma_y = pm.HalfNormal("sigma_alpha", 1.0), pm.HalfNormal("sigma_y", 1.0)
    mu_alpha, beta = pm.Normal("mu_alpha", 0.0, 10.0), pm.Normal("beta", 0.0, 10.0, shape=2)
    r = pm.Normal("r", 0.0, 1.0, shape=counties)
    alpha = pm.Deterministic("alpha", mu_alpha + sigma_alpha * r)
    pm.Normal("y", alpha[county] + beta[0] * log_uppm + beta[1] * floor, sigma_y, observed=y)


def garch(first_scale, y):
    mu, alpha0 = pm.Flat("mu"), pm.HalfFlat("alpha0")
    weights = pm.Dirichlet("weights", np.ones(3))
    alpha1, beta1 = pm.Deterministic("alpha1", weights[0]), pm.Deterministic("beta1", weights[1])

    def step(previous, variance, mu, alpha0, alpha1, beta1):
        return alpha0 + alpha1 * (previous - mu) ** 2 + beta1 * variance

    first = pt.as_tensor(np.float64(first_scale) ** 2, dtype="float64")  # a Python float would become float32
    rest = pytensor.scan(
        step, sequences=[pt.as_tensor(y[:-1])], outputs_info=[first], non_sequences=[mu, alpha0, alpha1, beta1],
        strict=True, return_updates=False,
    )  # fmt: skip
    pm.Normal("y", mu, pt.sqrt(pt.concatenate([first[None], rest])), observed=y)


def regression(sigma, beta=None, alpha=None, names=("beta", "alpha")):
    def build(X, y):
        weights = pm.Flat(names[0], shape=X.shape[1]) if beta is None else beta(names[0], X.shape[1])
        mean = pt.dot(X, weights) + (0.0 if alpha is None else alpha(names[1]))
        pm.Normal("y", mean, sigma("sigma"), observed=y)

    return build


def two_normals(y):
    ordered = pm.distributions.transforms.ordered
    mu = pm.Normal("mu", 0.0, 2.0, shape=2, transform=ordered, initval=np.array([-1.0, 1.0]))
    sigma, theta = pm.HalfNormal("sigma", 2.0, shape=2), pm.Beta("theta", 5.0, 5.0)
    pm.NormalMixture("y", w=pt.stack([theta, 1.0 - theta]), mu=mu, sigma=sigma, observed=y)


def gaussian_process_counts(x, k):
    rho, alpha = pm.Gamma("rho", 25.0, 4.0), pm.HalfNormal("alpha", 2.0)
    gap = 0.5 * (x[:, None] - x) ** 2
    covariance = alpha**2 * pt.exp(-gap / rho**2) + 1e-10 * np.eye(len(x))
    z = pm.Normal("f_tilde", 0.0, 1.0, shape=len(x))
    f = pm.Deterministic("f", pt.dot(pt.slinalg.cholesky(covariance), z))
    pm.Poisson("k", pt.exp(f), observed=k)


def normals(scale):
    return lambda name, size=None: pm.Normal(name, 0.0, scale, shape=size)


HALF_CAUCHY = regression(lambda n: pm.HalfCauchy(n, 2.5))
FLAT = regression(pm.HalfFlat)
MODELS = {
    "eight_schools-eight_schools_noncentered": eight_schools,
    "radon_mn-radon_hierarchical_intercept_noncentered": radon,
    "garch-garch11": garch,
    "mesquite-logmesquite": FLAT,
    "low_dim_gauss_mix-low_dim_gauss_mix": two_normals,
    "kidiq-kidscore_momhsiq": HALF_CAUCHY,
    "kidiq-kidscore_interaction": HALF_CAUCHY,
    "earnings-logearn_height_male": FLAT,
    "nes1980-nes": FLAT,
    "sblri-blr": regression(lambda n: pm.HalfNormal(n, 10.0), normals(10.0)),
    "diamonds-diamonds": regression(
        lambda n: pm.HalfStudentT(n, nu=3.0, sigma=10.0), normals(1.0),
        lambda n: pm.StudentT(n, nu=3.0, mu=8.0, sigma=10.0),
        ("b", "Intercept"),
    ),
    "arK-arK": regression(lambda n: pm.HalfCauchy(n, 2.5), normals(10.0), normals(10.0)),
    "gp_pois_regr-gp_pois_regr": gaussian_process_counts,
}  # fmt: skip


def speed(job) -> dict:
    """Cold to the target, then warm."""
    _, metric, chains = job.config.split("-")
    reference = pack.load_reference(job.pack, job.posterior)
    data = ARGUMENTS[job.posterior](pack.load_data(job.pack, job.posterior))
    with pm.Model() as model:
        MODELS[job.posterior](*data)
    compiled = nutpie.compile_pymc_model(model, backend="numba")
    options = {"low_rank_modified_mass_matrix": True} if metric == "lowrank" else {}

    def draw(seed: int) -> dict[str, np.ndarray]:
        trace = nutpie.sample(
            compiled, chains=int(chains), cores=1, tune=400, draws=1000, seed=seed, progress_bar=False,
            save_warmup=False, **options,
        )  # fmt: skip
        found = {name: np.asarray(value) for name, value in trace.posterior.data_vars.items()}
        wanted = {pack.base(key) for key in reference} if reference else set(found) - {"r", "t"}
        return {name: value for name, value in found.items() if name in wanted}

    diagnostics = common.diagnostics()
    draws, sets = draw(job.seed), 1
    while common.smallest_ess(diagnostics, draws) < job.target and common.cpu_of_process() < 600.0:
        more, sets = draw(job.seed + 100000 * sets), sets + 1
        draws = {name: np.concatenate([value, more[name]]) for name, value in draws.items()}
    row = {"cold": {"cpu": common.cpu_of_process(), "wall": time.perf_counter() - START}}
    row["cold"]["draws"] = common.save(job.out, "cold", draws)
    watch = common.Stopwatch()
    warm = draw(job.seed + 2000)
    row["warm"] = watch.read() | {"draws": common.save(job.out, "warm", warm)}
    return row


if __name__ == "__main__":
    common.report(speed(common.job()))
