"""Functions outside of JAX inside a model, against the same functions written in JAX."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist

Y = np.array([1.0, 2.0, 4.0])


class Counting:
    """A log likelihood on the host that notes the shapes it was called with."""

    def __init__(self, batched=False, fail=None, value=None):
        self.shapes, self.batched, self.fail, self.value = [], batched, fail, value

    def __call__(self, theta, y):
        self.shapes.append((np.shape(theta), np.shape(y)))
        if self.fail is not None and np.any(theta > 1.0):
            raise self.fail
        if self.value is not None:
            return self.value
        return -0.5 * ((y - theta[..., None]) ** 2).sum(-1)

    def gradient(self, theta, y):
        return (y - theta[..., None]).sum(-1), None


def normal(function, **options):
    @ppl.model
    def model(y):
        theta = ppl.sample("theta", dist.Normal(0.0, 2.0))
        ppl.factor("like", ppl.external("solver", function, theta, y, **options))

    return model


def exact(theta):
    return -0.125 * theta**2 - np.log(2.0) - 0.5 * np.log(2 * np.pi) - 0.5 * ((Y - theta) ** 2).sum()


@pytest.mark.parametrize("batched", [False, True])
def test_a_likelihood_on_the_host_is_part_of_the_density(batched):
    like = Counting()
    density = ppl.compile(normal(like, batched=batched, grad=like.gradient)(Y))
    assert (density.external, density.differentiable) == (("solver",), True)
    zs = np.array([[-1.0], [0.5], [0.5], [3.0]])
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(density)))(zs)
    np.testing.assert_allclose(values, [exact(z) for z in zs[:, 0]], rtol=1e-12)
    np.testing.assert_allclose(gradients[:, 0], -0.25 * zs[:, 0] + (Y - zs).sum(1), rtol=1e-12)
    # all four in one call; or one by one, the two equal ones once
    assert like.shapes == ([((4,), (4, 3))] if batched else [((), (3,))] * 3)


def test_without_a_gradient_the_density_says_so_before_anything_runs():
    like = Counting()
    density = ppl.compile(normal(like)(Y))
    assert not density.differentiable
    assert density.compiled.external_sites == {"solver": ("like",)}
    assert like.shapes == []
    np.testing.assert_allclose(density(np.array([0.3])), exact(0.3), rtol=1e-12)


def test_parts_and_conditionals_know_it_too():
    like = Counting()

    @ppl.model
    def model(y):
        theta = ppl.sample("theta", dist.Normal(0.0, 2.0))
        other = ppl.sample("other", dist.Normal(0.0, 1.0))
        ppl.factor("like", ppl.external("solver", like, theta, y))
        ppl.sample("x", dist.Normal(other + ppl.external("data", lambda y: y.sum(), y), 1.0))

    density = ppl.compile(model(Y).condition(x=0.0))
    prior, likelihood = density.split()
    assert prior.differentiable and not likelihood.differentiable
    one, two = (density.restrict(name, jnp.zeros(2)) for name in ("theta", "other"))
    assert (one.external, one.differentiable) == (("solver",), False)
    assert (two.external, two.differentiable) == (("data",), True)
    np.testing.assert_allclose(jax.jit(jax.grad(two))(jnp.zeros(1)), -7.0, rtol=1e-12)


def test_value_and_gradient_in_one_call():
    like = Counting()
    both = lambda theta, y: (like(theta, y), like.gradient(theta, y))  # noqa: E731
    density = ppl.compile(normal(both, grad=True)(Y))
    value, gradient = jax.jit(jax.value_and_grad(density))(jnp.array([0.3]))
    np.testing.assert_allclose([value, gradient[0]], [exact(0.3), -0.075 + (Y - 0.3).sum()], rtol=1e-12)
    assert len(like.shapes) == 1
    np.testing.assert_allclose(density(jnp.array([0.3])), value, rtol=1e-12)


@pytest.mark.parametrize("joint", [False, True])
def test_the_chain_rule_goes_on_behind_it(joint):
    cube = (lambda x, n: (n * x**3, (3 * n * x**2, None))) if joint else (lambda x, n: n * x**3)
    slope = True if joint else lambda x, n: (3 * n * x**2, None)
    f = lambda x: jnp.sin(ppl.external(cube, jnp.exp(x), 2, grad=slope))  # noqa: E731
    expected = lambda x: jnp.sin(2 * jnp.exp(x) ** 3)  # noqa: E731
    xs = np.array([-1.0, 0.2])
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(f)))(xs), jax.vmap(jax.grad(expected))(xs), rtol=1e-12)


@ppl.model
def decay(times, solve, options):
    rate = ppl.sample("rate", dist.LogNormal(0.0, 0.5))
    start = ppl.sample("start", dist.Normal(1.0, 1.0))
    mean = ppl.external(solve, rate, start, times, shape=times.shape, **dict(options))
    ppl.record("mean", mean)
    ppl.sample("y", dist.Normal(mean, 0.1))


def solve(rate, start, times):
    return start[..., None] * np.exp(-rate[..., None] * times)


def pull_back(rate, start, times, cotangent):
    curve = np.exp(-rate[..., None] * times)
    slope = (cotangent * -times * start[..., None] * curve).sum(-1)
    return slope, (cotangent * curve).sum(-1), np.zeros_like(times)


@pytest.mark.parametrize("options", [{}, {"batched": True}, {"pool": 2}])
def test_a_solver_in_the_mean_of_a_site_equals_the_same_in_jax(options):
    times = np.linspace(0.0, 2.0, 5)
    data = np.array([1.0, 0.8, 0.5, 0.4, 0.2])
    program = decay(times, solve, tuple({**options, "grad": pull_back}.items())).condition(y=data)

    def direct(z):
        rate, start = jnp.exp(z[0]), z[1]
        mean = start * jnp.exp(-rate * times)
        prior = dist.LogNormal(0.0, 0.5).log_prob(rate) + z[0] + dist.Normal(1.0, 1.0).log_prob(start)
        return prior + dist.Normal(mean, 0.1).log_prob(data).sum()

    density = ppl.compile(program)
    zs = np.array([[0.1, 1.0], [-0.7, 2.0], [0.4, -0.3]])
    got = jax.jit(jax.vmap(jax.value_and_grad(density)))(zs)
    want = jax.jit(jax.vmap(jax.value_and_grad(direct)))(zs)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-12)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-10)
    generated = jax.jit(jax.vmap(density.generated))(zs)
    np.testing.assert_allclose(generated["mean"], solve(np.exp(zs[:, 0]), zs[:, 1], times), rtol=1e-12)
    draw = program.release().sample(1)
    np.testing.assert_allclose(draw["mean"], solve(draw["rate"], draw["start"], times), rtol=1e-12)


def test_inside_plates_one_call_serves_all_elements_of_all_chains():
    like = Counting()

    @ppl.model
    def groups(y):
        @ppl.plate("group", y)
        def theta(row):
            theta = ppl.sample("theta", dist.Normal(0.0, 2.0))
            ppl.factor("like", ppl.external("solver", like, theta, row, batched=True, grad=like.gradient))
            return theta

    y = np.stack([Y, Y + 1.0])
    density = ppl.compile(groups(y))
    zs = np.array([[0.0, 1.0], [2.0, -1.0], [0.3, 0.4]])
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(density)))(zs)
    prior = (-0.125 * zs**2 - np.log(2.0) - 0.5 * np.log(2 * np.pi)).sum(1)
    np.testing.assert_allclose(values, prior - 0.5 * ((y[None] - zs[..., None]) ** 2).sum((1, 2)), rtol=1e-12)
    np.testing.assert_allclose(gradients, -0.25 * zs + (y[None] - zs[..., None]).sum(2), rtol=1e-12)
    assert like.shapes == [((6,), (6, 3))]


def test_a_call_that_reads_data_only_runs_once():
    calls = []

    def prepare(y):
        calls.append(1)
        return np.sort(y)

    @ppl.model
    def model(y):
        theta = ppl.sample("theta", dist.Normal(0.0, 2.0))
        ppl.sample("low", dist.Normal(theta + ppl.external(prepare, y, shape=y.shape)[0], 1.0))

    density = ppl.compile(model(np.array([5.0, -1.0, 2.0])).condition(low=0.0))
    assert (density.external, density.differentiable) == ((), True)
    gradient = jax.jit(jax.grad(density))
    for z in (0.0, 1.0, 2.0):
        np.testing.assert_allclose(gradient(jnp.array([z])), -0.25 * z - (z - 1.0), rtol=1e-12)
    assert len(calls) == 1


def test_a_model_defined_again_is_the_same_program():
    like = Counting()
    again = [ppl.compile(normal(like, grad=like.gradient)(Y)).compiled for _ in range(2)]
    assert again[0] is again[1]
    other = ppl.compile(normal(like, grad=lambda theta, y: (0.0, None))(Y)).compiled
    assert other is not again[0]


def test_derivatives_that_users_define_around_it_are_told_apart():
    like = Counting()

    def own(factor):
        f = jax.custom_vjp(lambda theta, y: ppl.external("solver", like, theta, y))
        f.defvjp(lambda t, y: (f(t, y), (t, y)), lambda rest, g: (factor * g * (rest[1] - rest[0]).sum(), None))

        @ppl.model
        def model(y):
            theta = ppl.sample("theta", dist.Normal(0.0, 2.0))
            ppl.factor("like", f(theta, y))

        return ppl.compile(model(Y))

    right, wrong = own(1.0), own(2.0)
    assert right.differentiable
    assert float(jax.grad(right)(jnp.zeros(1))[0]) == 7.0
    assert float(jax.grad(wrong)(jnp.zeros(1))[0]) == 14.0


# ---------------------------------------------------------------------------------------------- errors


class SolverError(RuntimeError):
    pass


def test_an_exception_reaches_the_user_as_it_was_raised():
    like = Counting(fail=SolverError("step size underflow"))
    density = ppl.compile(normal(like)(Y))
    assert np.isfinite(density(np.array([0.5])))
    with pytest.raises(SolverError, match="step size underflow") as caught:
        density(np.array([1.5]))
    assert caught.traceback[-1].name == "__call__"
    assert "self.fail" in str(caught.traceback[-1].statement)
    assert "in the external function 'solver'" in caught.value.__notes__[0]
    assert "test_external.py" in caught.value.__notes__[0]


def test_jax_does_not_log_it_beside(caplog):
    with pytest.raises(SolverError):
        ppl.compile(normal(Counting(fail=SolverError("underflow")))(Y))(np.array([1.5]))
    assert caplog.records == []


def test_under_somebody_elses_jit_the_error_still_names_the_function():
    density = ppl.compile(normal(Counting(fail=SolverError("underflow")))(Y))
    with pytest.raises(jax.errors.JaxRuntimeError, match="solver: SolverError: underflow"):
        np.asarray(jax.jit(density)(np.array([1.5])))


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (np.zeros(1), r"'solver' returned shape \(1,\), but \(\) is declared"),
        (None, "None \\(is a return statement missing\\?\\)"),
        (1j, "complex128"),
        ("no", "<U2"),
        (np.nan, "returned nan at"),
        (jnp.zeros(()), "returned a JAX array"),
    ],
)
def test_results_are_checked(result, message):
    like = Counting()
    like.value = result
    function = lambda theta, y: result  # noqa: E731
    with pytest.raises(ppl.ModelError, match=message) as caught:
        ppl.compile(normal(function)(Y))(np.array([0.0]))
    assert "'solver'" in "".join([str(caught.value), *caught.value.__notes__])


def test_nan_may_be_a_rejection_by_request_and_at_arguments_that_are_not_finite():
    density = ppl.compile(normal(lambda theta, y: np.nan, nan="reject")(Y))
    assert np.isnan(density(np.array([0.0])))
    strict = ppl.compile(normal(Counting(fail=ValueError("no solution")))(Y))
    assert np.isnan(strict(np.array([np.inf])))
    batched = ppl.compile(normal(Counting(fail=ValueError("no solution")), batched=True)(Y))
    values = jax.jit(jax.vmap(batched))(np.array([[np.inf], [0.5], [np.nan]]))
    np.testing.assert_allclose(values, [np.nan, exact(0.5), np.nan], rtol=1e-12)


def test_a_gradient_that_is_missing_where_it_is_needed_is_an_error():
    like = Counting()
    density = ppl.compile(normal(like, grad=lambda theta, y: (None, None))(Y))
    with pytest.raises(ppl.ModelError, match="argument 0 is None"), ppl.host.surfacing():
        jax.grad(density)(jnp.array([0.3]))
    density = ppl.compile(normal(like, grad=lambda theta, y: 1.0)(Y))
    with pytest.raises(ppl.ModelError, match="a tuple of 2 entries"), ppl.host.surfacing():
        jax.grad(density)(jnp.array([0.3]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nan": "drop"}, "nan="),
        ({"shape": 3}, "not a tuple"),
        ({"shape": (3,), "grad": True}, "scalar result"),
        ({"dtype": int, "grad": lambda t, y: t}, "has a gradient but the dtype"),
        ({"grad": 3}, "is a function or True"),
    ],
)
def test_options_are_checked_when_the_model_is_read(options, message):
    with pytest.raises(ppl.ModelError, match=message):
        ppl.compile(normal(Counting(), **options)(Y))


def test_what_is_no_function_or_no_array_is_refused():
    with pytest.raises(ppl.ModelError, match="takes a function"):
        ppl.external("solver", 3.0, 1.0)
    with pytest.raises(ppl.ModelError, match="argument 0 .* is no array but str"):
        ppl.external(np.sum, "text")


# ---------------------------------------------------------------------------------------------- threads


def test_one_call_at_a_time_unless_a_pool_is_given():
    inside, most = [0], [0]
    barrier = threading.Barrier(2, timeout=20)

    def watched(x):
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.002)  # another thread may come in now
        inside[0] -= 1
        return x

    def meeting(x):
        barrier.wait()  # two at once, or never
        return x

    f = jax.jit(lambda x: jax.lax.fori_loop(0, 20, lambda i, x: ppl.external(watched, x, grad=None) + 1.0, x))
    with ThreadPoolExecutor(4) as pool:
        assert sorted(float(x) for x in pool.map(f, np.arange(4.0))) == [20.0, 21.0, 22.0, 23.0]
    assert most == [1]
    pairs = jax.vmap(lambda x: ppl.external(meeting, x, pool=2))(np.arange(4.0))
    assert pairs.tolist() == [0.0, 1.0, 2.0, 3.0]
