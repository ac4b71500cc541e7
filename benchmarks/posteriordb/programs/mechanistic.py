"""Differential equations: predator and prey, an enzyme-limited drug, an epidemic with a reservoir.

Solved by the classical Runge-Kutta method with fixed steps. States that must be positive are integrated
on a scale where they stay so, or clamped to a tiny positive number, whose density is then negligible: a
hopeless proposal gets a low finite density, never a NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ppl
from ppl import dist

from .common import columns

Data = Mapping[str, Any]


def rk4(field: Callable[[Any, Any], Any], state: Any, times: Any, steps: int) -> Any:
    """Solve d state/dt = field(t, state) with ``steps`` equal Runge-Kutta steps between output times.

    Args:
        field: Right-hand side.
        state: Value at ``times[0]``, shape (k,).
        times: Increasing, shape (T + 1,).
        steps: Steps per interval.

    Returns:
        States at ``times[1:]``, shape (T, k).
    """

    def step(carry, _):
        t, h, x = carry
        k1 = field(t, x)
        k2 = field(t + 0.5 * h, x + 0.5 * h * k1)
        k3 = field(t + 0.5 * h, x + 0.5 * h * k2)
        k4 = field(t + h, x + h * k3)
        return (t + h, h, x + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)), None

    def interval(x, bounds):
        start, h = bounds
        (_, _, x), _ = jax.lax.scan(step, (start, h, x), None, length=steps)
        return x, x

    return jax.lax.scan(interval, state, (times[:-1], jnp.diff(times) / steps))[1]


@ppl.model
def lotka_volterra(times):
    """du/dt = (theta1 - theta2 v) u, dv/dt = (-theta3 + theta4 u) v, integrated in log u and log v."""
    theta = ppl.sample(
        "theta",
        dist.TruncatedNormal(np.array([1.0, 0.05, 1.0, 0.05]), np.array([0.5, 0.05, 0.5, 0.05]), low=0.0),
    )
    sigma = ppl.sample("sigma", dist.LogNormal(-1.0, 1.0).expand([2]))
    z_init = ppl.sample("z_init", dist.LogNormal(np.log(10.0), 1.0).expand([2]))
    ppl.sample("y_init", dist.LogNormal(jnp.log(z_init), sigma))

    def field(_, log_state):
        prey, predator = jnp.exp(jnp.minimum(log_state, 30.0))
        return jnp.stack([theta[0] - theta[1] * predator, theta[3] * prey - theta[2]])

    @ppl.plate("year", rk4(field, jnp.log(z_init), times, steps=10))
    def year(log_state):
        ppl.sample("y", dist.LogNormal(log_state, sigma))


def lotka_volterra_program(data: Data) -> Any:
    """Hare and lynx pelts over twenty years; year zero shares the noise of the others."""
    ts, y_init, y = columns(data, "ts", "y_init", "y")
    return lotka_volterra(np.concatenate([[0.0], ts])).condition(y_init=y_init, y=y)


@ppl.model
def one_compartment(times, dose, volume):
    """First-order absorption and Michaelis-Menten elimination; C(0) = 0, C_hat ~ LogN(log C, sigma)."""
    k_a = ppl.sample("k_a", dist.HalfCauchy(1.0))
    K_m = ppl.sample("K_m", dist.HalfCauchy(1.0))
    V_m = ppl.sample("V_m", dist.HalfCauchy(1.0))
    sigma = ppl.sample("sigma", dist.HalfCauchy(1.0))

    def field(t, state):
        c = jnp.maximum(state, 0.0)
        return k_a * dose / volume * jnp.exp(-k_a * t) - V_m / volume * c / (K_m + c)

    @ppl.plate("sample", rk4(field, jnp.zeros(1), times, steps=10)[:, 0])
    def concentration(c):
        ppl.sample("C_hat", dist.LogNormal(jnp.log(jnp.maximum(c, 1e-12)), sigma))


def one_compartment_program(data: Data) -> Any:
    """Twenty concentrations of a drug."""
    times, c_hat = columns(data, "times", "C_hat")
    grid = np.concatenate([[float(data["t0"])], times])
    return one_compartment(grid, float(data["D"]), float(data["V"])).condition(C_hat=c_hat)


@ppl.model
def epidemic(times, susceptible, bacteria):
    """Cholera-like epidemic (S, I, R, B) with a bacterial reservoir, kappa = 1e6.

    The equation for S is integrated as the cumulative force of infection F, S = S(0) exp(-F), so that the
    expected counts S(t[n-1]) - S(t[n]) are positive; R decouples.
    """
    beta = ppl.sample("beta", dist.HalfCauchy(2.5))
    gamma = ppl.sample("gamma", dist.HalfCauchy(1.0))
    xi = ppl.sample("xi", dist.HalfCauchy(25.0))
    delta = ppl.sample("delta", dist.HalfCauchy(1.0))

    def field(_, state):
        F, infected, B = state
        B = jnp.maximum(B, 0.0)
        force = beta * B / (B + 1e6)
        infection = force * susceptible * jnp.exp(-F)
        return jnp.stack([force, infection - gamma * infected, xi * infected - delta * B])

    start = jnp.stack([jnp.zeros(()), jnp.zeros(()), jnp.asarray(bacteria)])
    states = rk4(field, start, times, steps=25)
    F = jnp.concatenate([jnp.zeros(1), states[:, 0]])
    cases = -susceptible * jnp.exp(-F[:-1]) * jnp.expm1(-jnp.diff(F))

    @ppl.plate("week", cases, states[:, 2])
    def week(rate, B):
        ppl.sample("stoi_hat", dist.Poisson(jnp.maximum(rate, 1e-12)))
        ppl.sample("B_hat", dist.LogNormal(jnp.log(jnp.maximum(B, 1e-12)), 0.15))


def epidemic_program(data: Data) -> Any:
    """Twenty weeks of new infections and bacterial concentrations."""
    t, y0, b_hat = columns(data, "t", "y0", "B_hat")
    program = epidemic(np.concatenate([[0.0], t]), float(y0[0]), float(y0[3]))
    return program.condition(stoi_hat=np.asarray(data["stoi_hat"]), B_hat=b_hat)


PROGRAMS = {
    "hudson_lynx_hare-lotka_volterra": lotka_volterra_program,
    "one_comp_mm_elim_abs-one_comp_mm_elim_abs": one_compartment_program,
    "sir-sir": epidemic_program,
}
