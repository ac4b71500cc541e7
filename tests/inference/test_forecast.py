"""Forecasts against the Kalman filter and against loops written by hand. Other predictions: test_predict.py."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.inference import infer, load
from tests.inference.engines import Gaussian

pytestmark = pytest.mark.standard_promotion

T, H = 12, 10
Y = np.cumsum(np.random.default_rng(5).normal(size=T))


@ppl.model
def level(steps, phi, q, r, labels=None):
    """Autoregression (a local level where phi is one) seen through noise; its parameters are fixed."""

    def step(x, _):
        x = ppl.sample("x", dist.Normal(phi * x, q))
        ppl.record("twice", 2.0 * x)
        ppl.sample("y", dist.Normal(x, r))
        return x

    ppl.markov("time", step, init=lambda: ppl.sample("x0", dist.Normal(0.0, 1.0)), xs=steps, coords=labels)


def kalman(y, phi, q, r, ahead):
    """Mean and variance of y at 1..ahead steps after the data."""
    m, P = 0.0, 1.0
    for value in y:
        m, P = phi * m, phi**2 * P + q**2
        gain = P / (P + r**2)
        m, P = m + gain * (value - m), (1 - gain) * P
    found = []
    for _ in range(ahead):
        m, P = phi * m, phi**2 * P + q**2
        found.append((m, P + r**2))
    return np.array(found).T


def exact_fit(program, draws):
    """A fit whose draws are independent ones of a Gaussian posterior, its mean and covariance by Laplace's formula."""
    density = ppl.compile(program)
    zero = jnp.zeros(density.dim)
    hessian = np.asarray(jax.jit(jax.hessian(lambda d, z: d(z), argnums=1))(density, zero))
    gradient = np.asarray(jax.jit(jax.grad(lambda d, z: d(z), argnums=1))(density, zero))
    root = np.linalg.cholesky(np.linalg.inv(-hessian))
    mean = -np.linalg.solve(hessian, gradient)
    fit = infer(program, Gaussian(draws=draws), progress=False)
    object.__setattr__(fit.draws, "positions", mean + fit.draws.positions @ root.T)
    return fit


@pytest.mark.parametrize("phi", [1.0, pytest.param(0.8, marks=pytest.mark.slow)])
def test_ten_steps_equal_the_kalman_filter(phi):
    # 20 standardised statistics in each of two cases, |z| < 4: false alarm 3e-3; the seed is fixed.
    q, r = 0.7, 0.5
    fit = exact_fit(level(T, phi, q, r).condition(y=Y), draws=5000)
    out = fit.predict(horizon=H)
    assert set(out.data_vars) == {"x", "twice", "y"} and out["y"].dims == ("chain", "draw", "time")
    assert out["time"].values.tolist() == list(range(T, T + H))
    y = out["y"].values.reshape(-1, H)
    mean, variance = kalman(Y, phi, q, r, H)
    n = len(y)
    assert np.all(abs((y.mean(0) - mean) / np.sqrt(variance / n)) < 4)
    assert np.all(abs((y.var(0) / variance - 1) * np.sqrt(n / 2)) < 4)
    np.testing.assert_allclose(out["twice"], 2 * out["x"])


@pytest.mark.slow
def test_every_draw_goes_on_from_its_own_end_with_its_own_noise():
    fit = infer(level(T, 0.9, 0.7, 1e-9).condition(y=Y), Gaussian(draws=50), progress=False)
    out = fit.predict(horizon=H, names=["x"])["x"].values
    before = np.concatenate([fit.values["x"][..., -1:], out[..., :-1]], axis=-1)
    noise = ((out - 0.9 * before) / 0.7).ravel()  # 2000 standard normals, |z| < 4
    assert len(np.unique(noise)) == noise.size
    assert abs(noise.mean()) * np.sqrt(noise.size) < 4 and abs((noise**2).mean() - 1) * np.sqrt(noise.size / 2) < 4


def test_a_forecast_is_the_loop_written_by_hand_number_by_number():
    """Random numbers are keyed by draw, time and site; the loop below says how."""
    fit = infer(level(T, 0.9, 0.7, 0.5).condition(y=Y), Gaussian(draws=21), progress=False)
    out = fit.predict(horizon=3, seed=7)

    def normal(row, t, name):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(7), row), t)
        return float(jax.random.normal(ppl.values.fold_name(key, name)))

    for chain, draw in [(0, 0), (1, 2)]:
        row, x = 21 * chain + draw, fit.values["x"][chain, draw, -1]
        for t in range(T, T + 3):
            x = 0.9 * x + 0.7 * normal(row, t, "x")
            np.testing.assert_allclose(out["x"][chain, draw].sel(time=t), x, rtol=1e-12)
            np.testing.assert_allclose(out["y"][chain, draw].sel(time=t), x + 0.5 * normal(row, t, "y"), rtol=1e-12)


def test_a_longer_forecast_and_fewer_draws_have_the_same_numbers():
    fit = infer(level(T, 0.9, 0.7, 0.5).condition(y=Y), Gaussian(draws=21), progress=False)
    long, short, few = fit.predict(horizon=3), fit.predict(horizon=2), fit.predict(horizon=3, draws=3)
    np.testing.assert_allclose(long["y"].sel(time=[T, T + 1]), short["y"], rtol=1e-12)
    np.testing.assert_allclose(long["y"].sel(draw=[0, 10, 20]), few["y"], rtol=1e-12)
    assert not np.any(long["y"].values == fit.predict(horizon=3, seed=1)["y"].values)


def test_the_past_is_the_draws_and_the_data():
    fit = infer(level(T, 0.9, 0.7, 0.5).condition(y=Y), Gaussian(draws=5), progress=False)
    out = fit.predict(horizon=2, past=True, names=["x0", "x", "y"], seed=0)
    assert out.sizes["time"] == T + 2
    np.testing.assert_array_equal(out["x"][..., :T], fit.values["x"])
    np.testing.assert_array_equal(out["y"][..., :T], np.broadcast_to(Y, (4, 5, T)))
    np.testing.assert_array_equal(out["x0"], fit.values["x0"])
    np.testing.assert_array_equal(out["y"][..., T:], fit.predict(horizon=2)["y"])


@ppl.model
def observed_autoregression(y0, steps):
    rho = ppl.sample("rho", dist.Normal(0.0, 1.0))

    def step(before, _):
        y = ppl.sample("y", dist.Normal(rho * before[0] - 0.3 * before[1], 0.5))
        return y, before[0]

    start = ppl.sample("start", dist.Normal(y0, 1.0))
    ppl.markov("time", step, init=(start, start), xs=steps)


def test_observed_autoregression_goes_on_from_the_data():
    program = observed_autoregression(1.0, T).condition(y=Y, start=0.5)
    fit = infer(program, Gaussian(mean=0.8, sd=0.05, draws=100), progress=False)
    y = fit.predict(horizon=4)["y"].values
    rho = fit.values["rho"][..., None]
    series = np.concatenate([np.broadcast_to(Y, (4, 100, T)), y], axis=-1)
    noise = ((y - rho * series[..., T - 1 : -1] + 0.3 * series[..., T - 2 : -2]) / 0.5).ravel()
    # 1600 standard normals, |z| < 4
    assert abs(noise.mean()) * np.sqrt(noise.size) < 4 and abs((noise**2).mean() - 1) * np.sqrt(noise.size / 2) < 4
    # with one step of data the second one reads the observed start
    short = infer(observed_autoregression(1.0, 1).condition(y=[2.0], start=50.0), Gaussian(draws=5), progress=False)
    first = short.predict(horizon=1)["y"].values[..., 0]
    assert np.all(abs(first - short.values["rho"] * 2.0 + 15.0) < 4.0)


# ---------------------------------------------------------------------------------------- inputs


@ppl.model
def driven(x, labels=None):
    beta = ppl.sample("beta", dist.Normal(0.0, 1.0))

    def step(z, x):
        z = ppl.sample("z", dist.Normal(z, 0.1))
        ppl.sample("y", dist.Normal(z + beta * x, 0.1))
        return z

    ppl.markov("week", step, init=0.0, xs=x, coords=labels)


X = np.linspace(0.0, 1.0, T)


def test_inputs_of_the_future_are_given_by_the_longer_program():
    fit = infer(driven(X).condition(y=Y), Gaussian(mean=[2.0] + [1.0] * T, sd=0.01, draws=50), progress=False)
    with pytest.raises(ppl.ModelError, match=r"(?s)chain 'week' has inputs xs.*test_forecast.py:.*model\(longer_xs\)"):
        fit.predict(horizon=2)
    out = fit.predict(driven(np.append(X, [100.0, -100.0])))
    assert out["week"].values.tolist() == [T, T + 1]
    beta = fit.values["beta"][..., None]
    assert np.all(abs(out["y"].values - out["z"].values - beta * [100.0, -100.0]) < 1.0)
    assert np.all(abs(out["z"].values[..., 0] - fit.values["z"][..., -1]) < 0.5)
    assert "'week' goes on from 12 to 14 steps" in out.attrs["prediction_notes"][0]


def test_other_inputs_in_the_past_are_refused():
    fit = infer(driven(X).condition(y=Y), Gaussian(draws=5), progress=False)
    with pytest.raises(ppl.ModelError, match="first 12 steps are not those of the fit"):
        fit.predict(driven(np.append(X + 1.0, [0.0])))


def test_an_index_beyond_the_data_is_refused():
    @ppl.model
    def indexed(x, season, steps):
        def step(z, t):
            z = ppl.sample("z", dist.Normal(z + x[t] + season[t % 3], 0.1))
            return z

        last = ppl.markov("t", step, init=0.0, xs=steps)
        ppl.sample("y", dist.Normal(last[-1], 1.0))

    data = (np.arange(3.0), 3)
    fit = infer(indexed(X[:3], *data).condition(y=0.0), Gaussian(draws=5), progress=False)
    with pytest.raises(ppl.ModelError, match=r"index 3 is out of bounds.*\n?.*xs, not by index"):
        fit.predict(horizon=1)
    assert fit.predict(indexed(X[:4], np.arange(3.0), 4)).sizes["t"] == 1
    long = infer(indexed(X, *data).condition(y=0.0), Gaussian(draws=5), progress=False)
    assert long.predict(horizon=2).sizes["t"] == 2


# ---------------------------------------------------------------------------------------- plates


@ppl.model
def panel(steps, names):
    drift = ppl.sample("drift", dist.Normal(0.0, 1.0))

    @ppl.plate("unit", coords=names)
    def unit():
        mean = ppl.sample("mean", dist.Normal(drift, 0.1))

        @ppl.markov("time", init=0.0, xs=steps)
        def state(x, _):
            x = ppl.sample("x", dist.Normal(x + mean, 0.1))
            ppl.sample("y", dist.Normal(x, 0.1))
            return x


def test_chains_in_a_plate():
    program = panel(3, ("a", "b")).condition(y=np.zeros((2, 3)))
    fit = infer(program, Gaussian(mean=1.0, sd=0.1, draws=50), progress=False)
    out = fit.predict(horizon=2)
    assert out["y"].dims == ("chain", "draw", "unit", "time") and out["y"].shape[2:] == (2, 2)
    step = out["x"].values[..., 0] - fit.values["x"][..., -1] - fit.values["mean"]
    noise = (step / 0.1).ravel()
    assert abs(noise.mean()) * np.sqrt(noise.size) < 4 and abs((noise**2).mean() - 1) * np.sqrt(noise.size / 2) < 4
    # an unseen unit has a whole chain of its own beside the ones that go on
    with pytest.warns(UserWarning, match="new labels z"):
        more = fit.predict(panel(3, ("b", "z")), horizon=2, past=True, names=["x", "mean", "y"])
    np.testing.assert_array_equal(more["x"].sel(unit="b")[..., :3], fit.values["x"][..., 1, :])
    steps = np.diff(more["x"].sel(unit="z").values, axis=-1, prepend=0.0) - more["mean"].sel(unit="z").values[..., None]
    assert abs((steps**2).mean() / 0.01 - 1) * np.sqrt(steps.size / 2) < 4
    np.testing.assert_array_equal(more["y"].sel(unit="b")[..., :3], 0.0)
    assert np.all(more["y"].sel(unit="z") != 0.0)


def test_plates_in_a_chain():
    @ppl.model
    def sheet(steps):
        def step(x, _):
            @ppl.plate("unit", x)
            def after(x):
                x = ppl.sample("x", dist.Normal(x + 1.0, 0.1))
                ppl.sample("y", dist.Normal(x, 0.1))
                return x

            return after

        ppl.markov("time", step, init=jnp.zeros(3), xs=steps)

    fit = infer(sheet(2).condition(y=np.zeros((2, 3))), Gaussian(draws=50), progress=False)
    out = fit.predict(horizon=2)
    assert out["x"].dims == ("chain", "draw", "time", "unit") and out["x"].shape[2:] == (2, 3)
    first = out["x"].values[..., 0, :] - fit.values["x"][..., -1, :]
    noise = ((first - 1.0) / 0.1).ravel()
    assert abs(noise.mean()) * np.sqrt(noise.size) < 4 and abs((noise**2).mean() - 1) * np.sqrt(noise.size / 2) < 4


@pytest.mark.slow
def test_a_plate_over_the_states_is_longer_too():
    @ppl.model
    def walk(steps):
        state = ppl.markov("time", lambda x, _: ppl.sample("x", dist.Normal(x, 0.1)), init=0.0, xs=steps)

        @ppl.plate("time", state)
        def _(x):
            ppl.sample("y", dist.Normal(x, 1e-6))

    fit = infer(walk(3).condition(y=np.zeros(3)), Gaussian(draws=5), progress=False)
    out = fit.predict(horizon=2)
    np.testing.assert_allclose(out["y"], out["x"], atol=1e-4)
    assert out["time"].values.tolist() == [3, 4]


# ---------------------------------------------------------------------------------------- names, labels, refusals


def test_labels_go_on():
    years = (1990, 1995, 2000)
    fit = infer(level(3, 0.9, 0.7, 0.5, years).condition(y=Y[:3]), Gaussian(draws=5), progress=False)
    assert fit.predict(horizon=2)["time"].values.tolist() == [2005, 2010]
    assert fit.posterior["x"].coords["time"].values.tolist() == [1990, 1995, 2000]
    given = fit.predict(level(4, 0.9, 0.7, 0.5, (*years, 2030)))
    assert given["time"].values.tolist() == [2030]
    with pytest.raises(ppl.ModelError, match="step 0 is labelled 1985"):
        fit.predict(level(4, 0.9, 0.7, 0.5, (1985, *years)))
    dates = tuple(np.arange("2024-01-30", "2024-02-02", dtype="M8[D]").tolist())
    fit = infer(level(3, 0.9, 0.7, 0.5, dates).condition(y=Y[:3]), Gaussian(draws=5), progress=False)
    assert fit.predict(horizon=1)["time"].values.astype("M8[D]").astype(str).tolist() == ["2024-02-02"]
    odd = infer(level(3, 0.9, 0.7, 0.5, (1, 2, 5)).condition(y=Y[:3]), Gaussian(draws=5), progress=False)
    with pytest.raises(ppl.ModelError, match="not clear how the labels of the chain 'time' go on after 1, 2, 5"):
        odd.predict(horizon=2)


@ppl.model
def two_chains(a, b):
    def step(name):
        return lambda x, _: ppl.sample(name, dist.Normal(x, 1.0))

    ppl.markov("a", step("x"), init=0.0, xs=a)
    ppl.markov("b", step("z"), init=0.0, xs=b)
    ppl.sample("y", dist.Normal(0.0, 1.0))


def test_of_several_chains_one_is_named():
    fit = infer(two_chains(3, 4).condition(y=0.0), Gaussian(draws=5), progress=False)
    with pytest.raises(ppl.ModelError, match=r"2 chains, a, b; say which.*horizon=\{'a': 2, 'b': 2\}"):
        fit.predict(horizon=2)
    out = fit.predict(horizon={"b": 2})
    assert "x" not in out and out["z"].shape == (4, 5, 2)
    both = fit.predict(horizon={"a": 1, "b": 2})
    assert both["x"].shape == (4, 5, 1)
    with pytest.raises(ppl.ModelError, match="'c' is not a chain"):
        fit.predict(horizon={"c": 2})
    with pytest.raises(ppl.ModelError, match="positive int, not 0"):
        fit.predict(horizon={"a": 0})


def test_of_nested_chains_the_outer_goes_on():
    @ppl.model
    def nested(weeks, days):
        def week(x, _):
            return ppl.markov("day", lambda x, _: ppl.sample("x", dist.Normal(x, 0.1)), init=x, xs=days)[-1]

        ppl.markov("week", week, init=0.0, xs=weeks)
        ppl.sample("y", dist.Normal(0.0, 1.0))

    fit = infer(nested(2, 3).condition(y=0.0), Gaussian(draws=5), progress=False)
    out = fit.predict(horizon={"week": 1}, names="x")["x"].values
    assert out.shape == (4, 5, 1, 3) and np.all(abs(out[..., 0, 0] - fit.values["x"][..., 1, 2]) < 0.6)
    with pytest.raises(ppl.ModelError, match="'day' runs in every step of 'week'"):
        fit.predict(horizon={"day": 1})


def test_a_program_without_a_chain_has_no_horizon():
    @ppl.model
    def plain():
        ppl.sample("y", dist.Normal(ppl.sample("mu", dist.Normal(0.0, 1.0)), 1.0))

    with pytest.raises(ppl.ModelError, match=r"predict\(horizon=2\): model 'plain' has no chain"):
        infer(plain().condition(y=0.0), Gaussian(draws=5), progress=False).predict(horizon=2)


def test_a_model_that_needs_its_length_elsewhere_is_refused_with_the_horizon():
    @ppl.model
    def stiff(steps, x):
        state = ppl.markov("time", lambda c, _: ppl.sample("x", dist.Normal(c, 1.0)), init=0.0, xs=steps)

        @ppl.plate("row", x, state)
        def _(x, state):
            ppl.sample("y", dist.Normal(x + state, 1.0))

    fit = infer(stiff(3, np.zeros(3)).condition(y=np.zeros(3)), Gaussian(draws=5), progress=False)
    with pytest.raises(ppl.ModelError, match=r"(?s)predict\(horizon=2\).*argument 0: 3, argument 1: 5"):
        fit.predict(horizon=2)


def test_a_loaded_fit_forecasts(tmp_path):
    program = level(T, 0.9, 0.7, 0.5).condition(y=Y)
    fit = infer(program, Gaussian(draws=5), progress=False)
    fit.save(tmp_path / "fit")
    ours = fit.predict(horizon=2, past=True)
    for back in (load(tmp_path / "fit", program=program), load(tmp_path / "fit")):
        given = None if back.program is not None else program
        np.testing.assert_array_equal(ours["y"], back.predict(given, horizon=2, past=True)["y"])
