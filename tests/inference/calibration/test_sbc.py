"""Simulation-based calibration: right samplers pass, wrong ones fail, and nothing compiles twice.

A verdict at level alpha has false alarms of probability at most alpha over all quantities of a run; the seeds are
fixed, so the tests are deterministic on one platform.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.inference import infer, mcmc
from ppl.inference.calibration import SBC, bands, replicate, sbc
from ppl.inference.calibration.sbc import prepare
from ppl.models import datasets
from ppl.models.eight_schools import eight_schools_noncentred
from ppl.models.logistic import logistic_regression

ALPHA = 1e-3
SIZE = 4  # observations of the conjugate model


@ppl.model
def conjugate():
    """mu | y ~ N(n ybar / (n + 1), 1 / (n + 1))."""
    mu = ppl.sample("mu", dist.Normal(0.0, 1.0))

    @ppl.plate("row", SIZE)
    def y():
        return ppl.sample("y", dist.Normal(mu, 1.0))

    ppl.record("spread", jnp.std(y))  # depends on the data only, and on the order of a sum
    ppl.record("positive", (mu > 0).astype(jnp.int64))


@dataclass(frozen=True)
class Point:
    position: Any


@dataclass(frozen=True)
class Nothing:
    """A kernel's info without content."""


jax.tree_util.register_dataclass(Point, ["position"], [])
jax.tree_util.register_dataclass(Nothing, [], [])


@dataclass(frozen=True)
class Exact:
    """Independent draws of the conjugate posterior, shifted by a part of its sd and scaled."""

    shift: float = 0.0
    scale: float = 1.0
    correlation: float = 0.0

    def init(self, position, density):
        return Point(position)

    def step(self, key, state, density):
        y = density.data[-1]
        mean, sd = jnp.sum(y) / (SIZE + 1), (SIZE + 1) ** -0.5
        noise = jax.random.normal(key, state.position.shape, state.position.dtype)
        before = (state.position - mean) / sd
        white = self.correlation * before + (1.0 - self.correlation**2) ** 0.5 * noise
        return Point(mean + sd * (self.shift + self.scale * white)), Nothing()


@dataclass(frozen=True)
class Prior:
    """Returns the prior, whatever the data."""

    def init(self, position, density):
        return Point(position)

    def step(self, key, state, density):
        return Point(density.prior(key)), Nothing()


@dataclass(frozen=True)
class Stuck:
    """Stays where it starts."""

    def init(self, position, density):
        return Point(position)

    def step(self, key, state, density):
        return state, Nothing()


for _kernel in (Exact, Prior, Stuck):
    jax.tree_util.register_dataclass(_kernel, list(_kernel.__dataclass_fields__), [])


def run(kernel, **options):
    options = {"replications": 500, "draws": 99, "warmup": 0, "thin": 1, "seed": 3, **options}
    return sbc(conjugate(), kernel, observe="y", **options)


# ---------------------------------------------------------------------------------------------- verdicts


def test_the_exact_posterior_passes():
    """False alarm at most ALPHA for the verdict, 6e-5 for each moment."""
    result = run(Exact())
    assert result.passes(ALPHA), result
    assert result.labels == ("mu", "positive", "log_likelihood")  # the spread of y is given
    assert "spread" in result.notes[0]
    uniform = (result.ranks[:, 0] + 0.5) / 100
    assert abs(uniform.mean() - 0.5) * np.sqrt(12 * 500) < 4
    np.testing.assert_allclose(result.tau, 1.0, atol=0.2)


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        (Exact(scale=0.8), "too narrow"),
        (Exact(scale=1.25), "too wide"),
        (Exact(shift=0.2), "too high"),
        (Exact(shift=-0.2), "too low"),
    ],
)
def test_a_wrong_posterior_fails_and_is_described(kernel, words):
    """Power: these errors are found at ALPHA with 2000 replications in nearly all runs."""
    result = run(kernel, replications=2000)
    assert "mu" in result.failures(ALPHA), result
    assert words in result.direction("mu")
    assert "FAILED" in result.summary(ALPHA) and words in result.summary(ALPHA)


def test_only_the_log_likelihood_catches_the_prior():
    """The ranks of every parameter are uniform when the data are ignored; false alarm at most ALPHA.

    The chain reads no argument of its compiled function here, which aborts XLA unless they are kept in use.
    """
    result = run(Prior())
    assert result.failures(ALPHA) == ["log_likelihood"]
    # The truth explains its data better than a draw of the prior does: P(rank above 90) is far above 10%.
    assert (result.ranks[:, 2] > 90).mean() > 0.2


def test_chains_start_away_from_the_truth():
    """A chain that starts at the truth is stationary at once, and would hide that a kernel does not converge."""
    result = run(Stuck(), replications=100, quantities=["mu"])
    assert set(result.ranks.ravel()) == {0, 99} and not result.passes(ALPHA)


def test_the_false_alarm_rate_is_the_nominal_one():
    """40 quantities of exact draws, each with its own replications: the share of p < 0.1; |z| < 4."""
    rates = []
    for seed in range(20):
        rates.append(run(Exact(), replications=100, draws=19, seed=seed).pvalues()["ecdf"][[0, 2]] < 0.1)
    assert abs(np.mean(rates) - 0.1) < 4 * np.sqrt(0.09 / 40)


# ---------------------------------------------------------------------------------------------- ties, quantities


def test_ties_are_broken_at_random():
    """An indicator among draws is tied often; its ranks are uniform all the same. False alarm ALPHA."""
    result = run(Exact(), replications=1000, quantities=["positive"])
    assert result.labels == ("positive",) and result.passes(ALPHA)
    assert run(Prior(), replications=1000, quantities=["positive"]).passes(ALPHA)
    assert not run(Exact(shift=1.0), replications=1000, quantities=["positive"]).passes(ALPHA)


def test_own_quantities_see_parameters_records_and_data():
    functions = {
        "error": lambda v: v["y"] - v["mu"],
        "both": lambda v: jnp.where(v["positive"] > 0, v["mu"], v["spread"]),
    }
    result = run(Exact(), quantities=functions)
    assert result.labels[3:] == ("error[0]", "error[1]", "error[2]", "error[3]", "both")
    # y - mu falls when mu rises: its ranks are those of mu upside down, and equal in all elements.
    np.testing.assert_array_equal(result.ranks[:, 3], 99 - result.ranks[:, 0])
    assert result.comparisons == 5
    assert result.passes(ALPHA)


def test_a_truth_at_the_edge_of_floating_point_keeps_its_rank():
    """Half of the draws of this prior are 1 to the last bit, where the logit is infinite. False alarm ALPHA."""

    @ppl.model
    def edge():
        p = ppl.sample("p", dist.Beta(1.0, 0.02))
        ppl.sample("y", dist.Normal(0.0 * p, 1.0))

    result = sbc(edge(), Prior(), observe="y", replications=100, draws=19, warmup=0, thin=1, quantities=["p"])
    assert result.passes(ALPHA)


def test_a_truth_without_a_position_is_compared_by_its_simulated_values():
    subject = prepare(conjugate(), "y", ["mu"], 0, 3)
    positions, observed = np.array([[-1.0], [0.5], [2.0]]), {"y": np.ones(SIZE)}
    truth = (np.array([0.5]), np.array([np.nan]))
    codes = replicate.codes(subject.design, subject.density, observed, truth, positions)
    np.testing.assert_array_equal(codes[:, 0], [replicate.BELOW, replicate.EQUAL, 0])


def test_a_nan_has_no_rank():
    with pytest.raises(ValueError, match=r"odd is NaN in .*%"):
        run(Exact(), quantities={"odd": lambda v: jnp.sqrt(v["mu"])})


# ---------------------------------------------------------------------------------------------- thinning


def test_correlated_draws_are_thinned_until_ranks_are_uniform():
    """AR(1) draws with 0.9: unthinned they fail a right sampler, and the report says why. False alarm ALPHA."""
    kernel = Exact(correlation=0.9)
    raw = run(kernel, warmup=50, replications=1000, quantities=["mu"])
    assert not raw.passes(ALPHA) and "too narrow" in raw.direction("mu")
    assert raw.tau[0] > 5 and "correlated" in raw.notes[-1]
    thinned = run(kernel, warmup=50, thin=None, replications=1000, quantities=["mu"])
    assert thinned.passes(ALPHA) and 8 <= thinned.thin <= 40 and thinned.tau[0] <= 1.6


def test_every_thin_th_state_after_the_warm_up_is_kept():
    """A kernel that counts: quantities then say which iterations were compared."""
    # Rank of mu among draws warmup + thin * (1, ..., L), as the counter is the draw.
    result = run(Counter(), warmup=7, thin=3, draws=20, replications=50, quantities={"high": _above})
    assert result.labels[-1] == "high"
    np.testing.assert_array_equal(result.ranks[:, -1], 4)


@dataclass(frozen=True)
class Counter:
    """mu is the number of the iteration, from 1 000 on, which no prior draw reaches."""

    def init(self, position, density):
        return Point(jnp.full_like(position, 1000.0))

    def step(self, key, state, density):
        return Point(state.position + 1.0), Nothing()


jax.tree_util.register_dataclass(Counter, [], [])


def _above(values):
    """1019.5 at the truth, where mu is small; the counter at draws: 1010, 1013, ... of which four are lower."""
    return jnp.where(values["mu"] > 500.0, values["mu"], 1019.5)


# ---------------------------------------------------------------------------------------------- real samplers


def schools():
    data = datasets.load("eight_schools")
    return eight_schools_noncentred(data["standard_error"]).condition(y=data["effect"])


def regression(rows, columns):
    X = np.random.default_rng(0).normal(size=(rows, columns))
    return logistic_regression(X).condition(y=np.zeros(rows, int))


def test_nuts_is_calibrated_on_eight_schools():
    """False alarm ALPHA over its 19 quantities."""
    result = sbc(schools(), replications=300, seed=1)
    assert len(result.labels) == 19 and result.passes(ALPHA), result
    assert max(result.tau) < 1.6


@pytest.mark.slow
def test_nuts_is_calibrated_on_logistic_regression():
    """False alarm ALPHA over its 4 quantities."""
    result = sbc(regression(30, 2), replications=200, seed=2)
    assert result.labels == ("alpha", "beta[0]", "beta[1]", "log_likelihood")
    assert result.passes(ALPHA), result


def test_the_default_engine_is_calibrated_on_eight_schools():
    """PooledHMC through infer; false alarm ALPHA over 19 quantities."""
    result = sbc(schools(), engine=mcmc.PooledHMC(), replications=150, seed=4)
    assert result.sampler == "PooledHMC" and result.passes(ALPHA), result


def test_hmc_of_a_step_far_too_large_fails():
    """Without adaptation nothing is accepted: the ranks are those of one point."""
    kernel = mcmc.HMC(step_size=50.0, steps=1)
    result = sbc(schools(), kernel, replications=100, warmup=0, thin=1, draws=19, seed=0)
    assert not result.passes(ALPHA)


@pytest.mark.slow
@pytest.mark.parametrize("program", [schools(), regression(100, 5)], ids=["schools", "logistic"])
@pytest.mark.parametrize("kernel", [mcmc.NUTS(), mcmc.HMC()], ids=["nuts", "hmc"])
def test_kernels_are_calibrated_with_many_replications(program, kernel):
    """False alarm ALPHA each."""
    result = sbc(program, kernel, replications=2000, seed=5)
    assert result.passes(ALPHA), result


# ---------------------------------------------------------------------------------------------- compilation


@pytest.fixture
def compilations():
    found = []

    def listen(event, duration, **_):
        if event.endswith("backend_compile_duration"):
            found.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


def test_one_compilation_serves_all_replications_thinnings_and_seeds(compilations):
    options = {"observe": "y", "draws": 19, "warmup": 60, "chunk": 10}
    first = sbc(conjugate(), replications=35, seed=0, **options)
    assert len(compilations) == 1
    second = sbc(conjugate(), replications=60, seed=1, thin=first.thin + 1, **options)
    assert len(compilations) == 1 and second.ranks.shape[0] == 60


def test_engines_compile_nothing_for_new_data(compilations):
    engine = mcmc.PooledHMC(chains=4, draws=30, max_draws=30)
    sbc(conjugate(), observe="y", engine=engine, replications=2, draws=19)
    before = len(compilations)
    sbc(conjugate(), observe="y", engine=engine, replications=2, draws=19, seed=9)
    assert len(compilations) == before


# ---------------------------------------------------------------------------------------------- reproducibility, errors


def test_a_replication_depends_on_seed_and_number_only():
    options = {"replications": 30, "draws": 19, "quantities": ["mu"]}
    whole, pieces = run(Exact(), chunk=30, **options), run(Exact(), chunk=7, **options)
    np.testing.assert_array_equal(whole.ranks, pieces.ranks)
    assert (whole.ranks != run(Exact(), **{**options, "seed": 4}).ranks).any()


def test_interventions_and_arguments_stay():
    @ppl.model
    def shifted(x):
        offset = ppl.sample("offset", dist.Normal(0.0, 100.0))
        slope = ppl.sample("slope", dist.Normal(0.0, 1.0))

        @ppl.plate("row", x)
        def y(x):
            return ppl.sample("y", dist.Normal(offset + slope * x, 1.0))

    x = np.array([1.0, 2.0, 3.0])
    program = shifted(x).do(offset=7.0).condition(y=np.zeros(3))
    result = sbc(program, replications=150, draws=19, warmup=100, seed=6, quantities={"v": lambda v: v["y"][0] * 0 + 1})
    assert result.labels == ("slope", "log_likelihood")
    assert result.passes(ALPHA)  # false alarm ALPHA


def test_what_cannot_be_calibrated_is_refused():
    program = conjugate()
    with pytest.raises(ppl.ModelError, match="observe="):
        sbc(program)
    with pytest.raises(ppl.ModelError, match="'z' is not a random site"):
        sbc(program, observe="z")
    with pytest.raises(ppl.ModelError, match="keeps an observed value"):
        sbc(program.condition(mu=0.0), observe="y")
    with pytest.raises(ppl.ModelError, match="no latent site"):
        sbc(program, observe=["mu", "y"])
    with pytest.raises(ppl.ModelError, match="quantities: 'nu'"):
        sbc(program, observe="y", quantities=["nu"])
    with pytest.raises(ValueError, match="engine has its own"):
        sbc(program, observe="y", engine=mcmc.PooledHMC(), thin=2)
    with pytest.raises(TypeError, match="engine="):
        sbc(program, mcmc.PooledHMC(), observe="y")
    with pytest.raises(ValueError, match="replications=0"):
        sbc(program, observe="y", replications=0)
    with pytest.raises(TypeError, match="takes a program"):
        sbc(lambda z: z, observe="y")


def test_improper_priors_and_factors_are_refused():
    @ppl.model
    def improper():
        mu = ppl.sample("mu", dist.Flat())
        ppl.sample("y", dist.Normal(mu, 1.0))

    @ppl.model
    def weighted():
        mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
        ppl.factor("more", -(mu**2))
        ppl.sample("y", dist.Normal(mu, 1.0))

    with pytest.raises(ppl.ModelError, match="improper prior"):
        sbc(improper(), observe="y")
    with pytest.raises(ppl.ModelError, match="factor 'more'"):
        sbc(weighted(), observe="y")


# ---------------------------------------------------------------------------------------------- the report


def test_bonferroni_counts_different_quantities_once():
    rng = np.random.default_rng(0)
    ranks = rng.integers(0, 20, (100, 3))
    result = SBC(np.concatenate([ranks, ranks[:, :1]], axis=1), ("a", "b", "c", "a2"), draws=19)
    assert result.comparisons == 3
    level = result.pvalues()["ecdf"].min()
    assert result.passes(3 * level * 0.999) and not result.passes(3 * level * 1.001)


@pytest.mark.parametrize("kind", ["histogram", "ecdf"])
def test_plots_show_ranks_and_bands(kind):
    pytest.importorskip("matplotlib")
    ranks = np.random.default_rng(1).integers(0, 20, (100, 3))
    figure = SBC(ranks, ("a", "b", "c"), draws=19).plot(["c", "a"], kind=kind)
    assert [axis.get_title() for axis in figure.axes] == ["c", "a"]
    drawn = figure.axes[0].patches if kind == "histogram" else figure.axes[0].lines
    heights = drawn[-1].get_data().values if kind == "histogram" else drawn[0].get_ydata()
    if kind == "histogram":
        np.testing.assert_array_equal(heights, bands.histogram(ranks[:, 2], 19)[1])
    else:
        np.testing.assert_allclose(heights, bands.counts(ranks[:, 2], 19) / 100 - np.arange(1, 20) / 20)


def test_a_plain_fit_of_a_simulated_data_set_agrees_with_the_compiled_replication():
    """The density that a replication binds in the graph is that of a conditioned program: one data set of each."""
    subject = prepare(schools(), None, None, 0, 9)
    seeds = np.array([1, 2], np.uint32)
    observed, truth, z, _ = replicate.simulations(subject.design, subject.density, seeds, np.arange(2, dtype=np.uint32))
    bound = replicate.bind(subject.design, subject.density, {"y": observed["y"][1, 0]})
    plain = ppl.compile(schools().condition(y=np.asarray(observed["y"][1, 0])))
    position = np.linspace(-1.0, 1.0, 10)
    assert float(bound(position)) == pytest.approx(float(plain(position)), rel=1e-12)
    values = plain.generated(z[1, 0])
    mine = np.concatenate([np.ravel(values[name]) for name in subject.design.names[:-1]])
    np.testing.assert_allclose(truth[1, 0, :-1], mine, rtol=1e-9)
    likelihood = sum(float(jnp.sum(f)) for f in plain.pointwise(z[1, 0]).values())
    assert float(truth[1, 0, -1]) == pytest.approx(likelihood, rel=1e-9)


def test_infer_is_what_the_engine_path_runs():
    """The draws ranked are those of infer with the same data: a wrong engine fails."""

    @dataclass(frozen=True)
    class Wide:
        inner: Any = mcmc.PooledHMC(chains=4, draws=50, max_draws=50)

        def plan(self, target):
            return self.inner.plan(target)

        def start(self, *args):
            return self.inner.start(*args)

        def advance(self, *args):
            return self.inner.advance(*args)

        def finish(self, *args):
            draws = self.inner.finish(*args)
            centre = draws.positions.mean(axis=(0, 1))
            return replace(draws, positions=centre + 4.0 * (draws.positions - centre))

    assert callable(infer)
    result = sbc(conjugate(), observe="y", engine=Wide(), replications=100, draws=19, quantities=["mu"])
    assert "too wide" in result.direction("mu") and not result.passes(ALPHA)
