"""The incomplete gamma and beta integrals against 50-digit references, values and derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats as st

from ppl.distributions.special import log1mexp, log_betainc, log_diff, log_gammainc, log_gammaincc, log_student_sf

# a, x, log P, log Q, d log P / d a, d log Q / d a, computed with 50 digits.
GAMMA = [
    (0.3, 1e-06, -4.036478588650613, -0.017817339866039034, -13.6463202608134, 0.245320112053784),
    (0.01, 1.0, -0.0022186941057126645, -6.111945638793726, -0.224354949580687, 101.008135161917),
    (0.01, 0.5, -0.005642646020085002, -5.180222167358926, -0.568746107397853, 100.510114925828),
    (2.5, 3.0, -0.365598812637919, -1.1834550131691672, -0.327983217354158, 0.743091094623871),
    (2.0, 2.5, -0.3386911899353018, -1.247237031504632, -0.349070006719052, 0.865942350057398),
    (1.0, 1.5, -0.252482458925454, -1.5, -0.410989440295523, 1.43093744230128),
    (5.0, 200.0, 0.0, -181.96468470744782, 0.0, 3.79727493679386),
    (5.0, 1200.0, 0.0, -1174.8144103776833, 0.0, 5.58479458515968),
    (50.0, 2.0, -115.78043452642225, -5.215023330824421e-51, -3.22964089924036, 1.68403226880342e-50),
    (50.0, 1e-05, -724.124050004206, 0.0, -15.4349151422428, 0.0),
    (10000.0, 12000.0, 0.0, -180.70209048800146, 0.0, 0.182868599501625),
    (10000.0, 8000.0, -235.35218139758368, 0.0, -0.223591571645728, 0.0),
    (10000.0, 10000.0, -0.6904910944019723, -0.69581034030382, -0.00795774754081327, 0.0080001895364409),
    (1000000.0, 1001000.0, -0.17275373112418319, -1.8410218990178857, -0.000287552039834257, 0.00152488155911351),
    (0.5, 3000.0, 0.0, -3004.5757153240293, 0.0, 9.97021076049554),
    (30.0, 30.5, -0.5793692965591838, -0.821552551483071, -0.128762683191272, 0.164047217806509),
    (100.0, 1000.0, 0.0, -675.1623043733719, 0.0, 2.30870180615733),
]

# a, b, x, log I, d / d a, d / d b, computed with 50 digits.
BETA = [
    (2.0, 3.0, 0.4, -0.6447380413522577, -0.458973658703423, 0.297912226397863),
    (1.0, 1.0, 0.6, -0.5108256237659907, -0.510825623765991, 0.610860487916103),
    (1.0, 4.0, 0.01, -3.2338881987700785, -3.52938281014113, 0.245008500916619),
    (0.5, 0.5, 1e-09, -10.813215623595994, -21.3369714756043, 1.38629436078656),
    (5.0, 300.0, 0.5, 0.0, 0.0, 0.0),
    (300.0, 5.0, 0.2, -464.0503789872989, -1.59622564675404, 3.99024293615751),
    (2000.0, 3000.0, 0.3, -116.50481995817108, -0.288921370088653, 0.154811598532531),
    (2000.0, 3000.0, 0.4, -0.6916127824598517, -0.0137999188363298, 0.00919969033854947),
    (100000.0, 100000.0, 0.49, -43.13008193516077, -0.0204492589894417, 0.0200442967685831),
    (3.0, 1.0, 0.999, -0.0030015010007506033, -0.00100050033358353, 0.0182612770444282),
    (400.0, 0.5, 0.01, -1845.6314715380875, -4.60641937333225, 7.94494968629511),
    (20.0, 2000.0, 0.9, 0.0, 0.0, 0.0),
]


def _close(found, wanted, rtol):
    np.testing.assert_allclose(found, wanted, rtol=rtol, atol=1e-30)


def _all(function, count):
    """Jitted values and gradients of a function of `count` arguments, over columns."""
    return jax.jit(jax.vmap(jax.value_and_grad(function, tuple(range(count)))))


def test_gamma_integrals():
    a, x, p, q, dp, dq = np.array(GAMMA).T
    value_p, slope_p = _all(log_gammainc, 2)(a, x)
    value_q, slope_q = _all(log_gammaincc, 2)(a, x)
    # A log probability of -1e-30 is zero; its digits are those of a probability lost beside one.
    _close(value_p, p, 1e-11)
    _close(value_q, q, 1e-11)
    _close(slope_p[0], dp, 1e-11)
    _close(slope_q[0], dq, 1e-11)
    # d log P / dx = density / P, d log Q / dx = -density / Q
    density = st.gamma.logpdf(x, a)
    _close(slope_p[1], np.exp(density - p), 1e-8)
    _close(slope_q[1], -np.exp(density - q), 1e-8)


def test_beta_integral():
    a, b, x, value, da, db = np.array(BETA).T
    found, slopes = _all(log_betainc, 3)(a, b, x)
    _close(found, value, 1e-11)
    _close(slopes[0], da, 1e-11)
    _close(slopes[1], db, 1e-11)
    _close(slopes[2], np.exp(st.beta.logpdf(x, a, b) - value), 1e-8)


def test_single_precision():
    with jax.enable_x64(False):
        a, x, p, q, *_ = np.array(GAMMA).T.astype(np.float32)
        usual = (a > 0.1) & (a < 1e5)  # a near zero: Q = 1 - P; a near 1e6: x - a itself has few digits
        np.testing.assert_allclose(jax.jit(log_gammainc)(a, x)[usual], p[usual], rtol=5e-6, atol=1e-6)
        np.testing.assert_allclose(jax.jit(log_gammaincc)(a, x)[usual], q[usual], rtol=5e-6, atol=1e-6)
        a, b, x, value, *_ = np.array(BETA).T.astype(np.float32)
        np.testing.assert_allclose(jax.jit(log_betainc)(a, b, x), value, rtol=1.5e-5, atol=1e-6)


@pytest.mark.parametrize("df", [0.7, 3.0, 50.0])
def test_student_survival(df):
    t = np.array([-30.0, -1.0, -1e-9, 0.0, 1e-200, 1e-3, 2.0, 50.0])
    value, (slope_df, slope_t) = _all(log_student_sf, 2)(np.full_like(t, df), t)
    np.testing.assert_allclose(value, st.t.logsf(t, df), rtol=1e-13)
    np.testing.assert_allclose(slope_t, -np.exp(st.t.logpdf(t, df) - st.t.logsf(t, df)), rtol=1e-11)
    step = 1e-5 * df
    difference = (st.t.logsf(t, df + step) - st.t.logsf(t, df - step)) / (2 * step)
    np.testing.assert_allclose(slope_df, difference, rtol=1e-6, atol=1e-9)


def test_second_derivatives():
    """Forward over reverse works; P(2, x) = 1 - (1 + x) e^-x has a second derivative known in x."""
    hessian = jax.jit(jax.hessian(lambda z: log_gammaincc(z[0], z[1])))(jnp.array([2.0, 3.0]))
    assert abs(float(hessian[1, 1]) + 1.0 / 16.0) < 1e-12
    step = 1e-4
    slope = jax.jit(jax.grad(log_gammaincc, 1))
    difference = (slope(2.0 + step, 3.0) - slope(2.0 - step, 3.0)) / (2 * step)
    assert abs(float(hessian[0, 1] - difference)) < 1e-7
    np.testing.assert_allclose(hessian, hessian.T, rtol=1e-10)


def test_ends():
    ends = jnp.array([0.0, jnp.inf])
    np.testing.assert_array_equal(jax.jit(log_gammainc)(2.0, ends), [-np.inf, 0.0])
    np.testing.assert_array_equal(jax.jit(log_gammaincc)(2.0, ends), [0.0, -np.inf])
    np.testing.assert_array_equal(jax.jit(log_betainc)(2.0, 3.0, jnp.array([0.0, 1.0])), [-np.inf, 0.0])
    for function in (log_gammainc, log_gammaincc):
        assert np.all(np.isfinite(_all(function, 2)(np.full(2, 2.0), ends)[1]))


def test_differences_of_exponentials():
    x = jnp.array([-1e-300, -1e-9, -0.1, -0.7, -5.0, -800.0, -jnp.inf])
    np.testing.assert_allclose(log1mexp(x[1:4]), np.log(-np.expm1(np.asarray(x[1:4]))), rtol=1e-14)
    assert log1mexp(x[-1]) == 0.0 and log1mexp(0.0) == -np.inf
    assert np.all(np.isfinite(jax.vmap(jax.grad(log1mexp))(x)))
    assert abs(float(log_diff(-2000.0, -2001.0)) - (-2000.0 + np.log1p(-np.exp(-1.0)))) < 1e-12
    assert log_diff(-3.0, -3.0) == -np.inf and log_diff(-3.0, -np.inf) == -3.0
    for pair in [(-3.0, -3.0), (-3.0, -np.inf), (-np.inf, -np.inf)]:
        assert np.all(np.isfinite(jax.grad(log_diff, (0, 1))(*pair)))
