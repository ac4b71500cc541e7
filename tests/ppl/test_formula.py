"""Formulas: densities equal hand-written ones, estimates equal published ones, new data are coded as the old."""

from __future__ import annotations

import warnings

import jax
import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.stats as st
from scipy.optimize import minimize

import ppl
from ppl import dist
from ppl.formula_text import parse
from ppl.inference import infer, laplace
from ppl.models import datasets
from tests.oracles import mixed

pytestmark = pytest.mark.standard_promotion

RNG = np.random.default_rng(3)
X = RNG.normal(2.0, 3.0, 12)
G = np.array(list("aabbccddabcd"))
TABLE = {"x": X, "g": G, "h": np.tile([1, 2, 3], 4), "t": np.full(12, 5), "o": X / 10, "c": list("uvw" * 4)}


def with_response(y, **more):
    return {**TABLE, "y": y, **more}


# ---------------------------------------------------------------------------------------- the text


@pytest.mark.parametrize(
    ("text", "common", "groups"),
    [
        ("y ~ x", "x", []),
        ("y ~ (1 | g)", "1", [("1", ("g",), True)]),
        ("y~x+(x|g)-1", "x - 1", [("x", ("g",), True)]),
        ("y ~ -1 + x", "- 1 + x", []),
        ("y ~ 0 + (a + b):z + (1 + x || g)", "0 + (a + b):z", [("1 + x", ("g",), False)]),
        ("y ~ (1 | a/b)", "1", [("1", ("a",), True), ("1", ("a", "b"), True)]),
        ("y ~ (0 + log(x + 1) | a:`b c`)", "1", [("0 + log(x + 1)", ("a", "b c"), True)]),
        ("log(y) ~ np.where(x > 0, 1, 2) + `a|b`", "np.where(x > 0, 1, 2) + `a|b`", []),
    ],
)
def test_the_parts_of_a_formula(text, common, groups):
    found = parse(text)
    assert found.common == common
    assert [(g.effects, g.factors, g.correlated) for g in found.groups] == groups


@pytest.mark.parametrize(
    "text",
    ["y", "~ x", "y ~", "y ~ x ~ z", "y ~ 1 | g", "y ~ x - (1 | g)", "y ~ (1 | g + h)", "y ~ ( | g)", "y ~ (1 | )",
     "y | trials(n) ~ x", "y ~ x +", "y ~ (1 | a/b:c)"],
)  # fmt: skip
def test_a_formula_that_cannot_be_read(text):
    with pytest.raises(ppl.ModelError, match="cannot be read"):
        parse(text)


# ---------------------------------------------------------------------------------------- densities


def hand(family, eta, y, link=None, sigma=1.3, nu=4.0, shape=2.5, concentration=1.7):
    """Log likelihood by scipy."""
    inverse = {
        "identity": lambda e: e,
        "log": np.exp,
        "logit": lambda e: 1 / (1 + np.exp(-e)),
        "probit": st.norm.cdf,
        "cloglog": lambda e: 1 - np.exp(-np.exp(e)),
    }
    mu = inverse[link](eta)
    law = {
        "gaussian": lambda: st.norm(mu, sigma).logpdf(y),
        "student_t": lambda: st.t(nu, mu, sigma).logpdf(y),
        "bernoulli": lambda: st.bernoulli(mu).logpmf(y),
        "binomial": lambda: st.binom(5, mu).logpmf(y),
        "poisson": lambda: st.poisson(mu).logpmf(y),
        "negativebinomial": lambda: st.nbinom(concentration, concentration / (concentration + mu)).logpmf(y),
        "gamma": lambda: st.gamma(shape, scale=mu / shape).logpdf(y),
    }
    return law[family]().sum()


CASES = [
    ("gaussian", None, "identity", X + 1), ("gaussian", "log", "log", np.abs(X)), ("student_t", None, "identity", X),
    ("bernoulli", None, "logit", X > 2), ("bernoulli", "probit", "probit", X > 2),
    ("binomial", None, "logit", np.arange(12) % 6), ("binomial", "cloglog", "cloglog", np.arange(12) % 6),
    ("poisson", None, "log", np.arange(12)), ("negativebinomial", None, "log", np.arange(12)),
    ("gamma", None, "log", np.abs(X) + 0.1),
]  # fmt: skip
AUXILIARY = {"sigma": 1.3, "nu": 4.0, "shape": 2.5, "concentration": 1.7}


@pytest.mark.parametrize(("family", "link", "used", "y"), CASES, ids=[f"{c[0]}-{c[2]}" for c in CASES])
def test_the_density_of_every_family_equals_a_hand_written_one(family, link, used, y):
    trials = "t" if family == "binomial" else None
    program = ppl.formula("y ~ x", with_response(y), family=family, link=link, trials=trials, offset="o")
    aux = {name: value for name, value in AUXILIARY.items() if name in program.sites}
    values = {"level": 0.2, "b": np.array([-0.1]), **aux}
    factors = {name: np.asarray(f) for name, f in program.factors(values).items()}
    eta = 0.2 - 0.1 * (X - X.mean()) + X / 10
    exact = hand(family, eta, np.asarray(y, float), used)
    # NumPyro's negative binomial takes JAX's log beta function, which is right to 1e-6 only
    np.testing.assert_allclose(factors["y"].sum(), exact, rtol=1e-6 if family == "negativebinomial" else 1e-9)

    yf = np.asarray(y, float)
    s = yf.std(ddof=1) if used == "identity" else 1.0
    place = {"identity": yf.mean(), "log": np.log(yf.mean())}.get(used, 0.0)
    np.testing.assert_allclose(factors["level"], st.norm(place, 2.5 * s).logpdf(0.2), rtol=1e-12)
    np.testing.assert_allclose(factors["b"], [st.norm(0, 2.5 * s / X.std(ddof=1)).logpdf(-0.1)], rtol=1e-12)
    if "sigma" in aux:
        np.testing.assert_allclose(factors["sigma"], st.expon(scale=yf.std(ddof=1)).logpdf(1.3), rtol=1e-12)


def test_group_terms_equal_a_loop():
    y = RNG.normal(size=12)
    text = "y ~ 1 + x + (1 + x | g) + (0 + x || h) + (1 | g/h)"
    program = ppl.formula(text, with_response(y))
    value = {
        "level": 0.4, "b": np.array([0.3]), "sigma": 0.8, "g_sd": np.array([0.5, 1.5]), "h_sd": 0.7, "g_2_sd": 1.1,
        "g_L": np.array([[1.0, 0.0], [0.6, 0.8]]), "g:h_sd": 0.3, "g_z": RNG.normal(size=(4, 2)),
        "h_z": RNG.normal(size=3), "g_2_z": RNG.normal(size=4), "g:h_z": RNG.normal(size=10),
    }  # fmt: skip
    assert {n for n, site in program.sites.items() if site.kind == "latent"} == set(value)
    b0, b1 = value["level"] - X.mean() * 0.3, 0.3
    mu = np.empty(12)
    groups, nested = list("abcd"), sorted({f"{g}:{h}" for g, h in zip(G, TABLE["h"], strict=True)})
    assert program.coords["g:h"].tolist() == nested
    for i in range(12):
        g, h, gh = groups.index(G[i]), TABLE["h"][i] - 1, nested.index(f"{G[i]}:{TABLE['h'][i]}")
        u = value["g_sd"] * (value["g_L"] @ value["g_z"][g])
        mu[i] = b0 + b1 * X[i] + u[0] + u[1] * X[i]
        mu[i] += value["h_sd"] * value["h_z"][h] * X[i]
        mu[i] += value["g_2_sd"] * value["g_2_z"][g] + value["g:h_sd"] * value["g:h_z"][gh]
    factors = program.factors(value)
    np.testing.assert_allclose(np.asarray(factors["y"]), st.norm(mu, value["sigma"]).logpdf(y), rtol=1e-9)
    np.testing.assert_allclose(np.asarray(factors["g_z"]), st.norm.logpdf(value["g_z"]), rtol=1e-9)
    s = y.std(ddof=1)
    scale = 2.5 * s / np.array([1.0, X.std(ddof=1)])
    np.testing.assert_allclose(np.asarray(factors["g_sd"]), st.halfnorm(scale=scale).logpdf(value["g_sd"]), rtol=1e-9)
    lkj = np.log(0.75) + np.log1p(-(0.6**2))  # LKJ(2) for two, in the correlation: 3/4 (1 - r^2)
    np.testing.assert_allclose(float(factors["g_L"]), lkj, rtol=1e-7)


def test_uncorrelated_effects_have_no_correlation():
    program = ppl.formula("y ~ (1 + x || g)", with_response(X))
    assert "g_L" not in program.sites and program.sites["g_sd"].shape == (2,)
    assert program.sites["g_offset"].dims == ("g", "g_effect")
    assert program.coords["g_effect"].tolist() == ["Intercept", "x"]


@pytest.mark.parametrize("priors", ["weak", "flat", {"b": dist.StudentT(3.0, 0.0, 2.0), "g_correlation": 3.0}])
def test_the_text_that_is_shown_is_the_model(priors):
    program = ppl.formula("y ~ x + c + (x | g)", with_response(np.arange(12)), family="poisson", priors=priors)
    namespace = {}
    exec(ppl.formula.source(program), namespace)
    model = next(v for v in namespace.values() if isinstance(v, ppl.program.Model))
    again = model(program.inputs["data"], namespace["prior"], program.inputs["labels"]).condition(y=np.arange(12))
    a, b = ppl.compile(program), ppl.compile(again)
    assert str(a.compiled.code.jaxpr) == str(b.compiled.code.jaxpr)
    jax.tree_util.tree_map(np.testing.assert_array_equal, a.data, b.data)


def test_labels_and_terms_name_the_result():
    program = ppl.formula("y ~ x + c + (1 | g)", with_response(X))
    assert program.coords["coefficient"].tolist() == ["c[T.v]", "c[T.w]", "x"] or set(
        program.coords["coefficient"].tolist()
    ) == {"x", "c[T.v]", "c[T.w]"}
    assert program.coords["g"].tolist() == ["a", "b", "c", "d"]


def test_formulas_of_one_text_share_their_compilation():
    a = ppl.formula("y ~ x + (1 | g)", with_response(X))
    b = ppl.formula("y ~ x + (1 | g)", with_response(2 * X + 1))
    assert ppl.compile(a).compiled is ppl.compile(b).compiled


# ---------------------------------------------------------------------------------------- priors


def test_priors_are_replaced_by_name():
    asked = {"x": dist.Normal(1.0, 0.5), "sigma": dist.HalfNormal(2.0), "Intercept": dist.Normal(0.0, 9.0)}
    program = ppl.formula("y ~ x + o", with_response(X), priors=asked)
    values = {"level": 0.3, "b": np.array([0.7, 0.1]), "sigma": 1.1}
    factors = program.factors(values)
    scale = 2.5 * X.std(ddof=1) / (X / 10).std(ddof=1)
    np.testing.assert_allclose(factors["b"], st.norm([1.0, 0.0], [0.5, scale]).logpdf([0.7, 0.1]), rtol=1e-9)
    np.testing.assert_allclose(factors["sigma"], st.halfnorm(scale=2.0).logpdf(1.1), rtol=1e-9)
    np.testing.assert_allclose(factors["level"], st.norm(0, 9).logpdf(0.3), rtol=1e-9)


@pytest.mark.parametrize(
    ("priors", "match"),
    [
        ({"z": dist.Normal(0.0, 1.0)}, "has no prior"),
        ({"x": dist.Cauchy(0.0, 1.0)}, "are normal here"),
        ({"sigma": 2.0}, "not a distribution"),
        ({"b": dist.Normal(np.zeros(3), 1.0)}, "shape"),
        ({"g_correlation": -1.0}, "LKJ"),
        ("vague", "neither"),
    ],
)
def test_priors_that_do_not_fit(priors, match):
    with pytest.raises(ppl.ModelError, match=match):
        ppl.formula("y ~ x + (x | g)", with_response(X), priors=priors)


# ---------------------------------------------------------------------------------------- new data


def test_new_data_are_coded_as_the_old():
    y = RNG.normal(size=12)
    program = ppl.formula("y ~ center(x) + scale(o) + poly(x, 2) + c + (1 | g)", with_response(y))
    new = {"x": [10.0, X[0]], "o": [0.0, 0.1], "c": ["w", "w"], "g": ["z", "b"]}
    other = ppl.formula.new(program, new)
    names = program.coords["coefficient"].tolist()
    row = dict(zip(names, other.inputs["data"]["X"].T, strict=True))
    np.testing.assert_allclose(row["center(x)"], np.array([10.0, X[0]]) - X.mean())
    np.testing.assert_allclose(row["scale(o)"], (np.array([0.0, 0.1]) - (X / 10).mean()) / (X / 10).std(ddof=1))
    old = dict(zip(names, program.inputs["data"]["X"].T, strict=True))
    np.testing.assert_allclose(row["poly(x, 2)[2]"][1], old["poly(x, 2)[2]"][0])
    np.testing.assert_allclose([row["c[T.v]"], row["c[T.w]"]], [[0, 0], [1, 1]])
    assert other.coords["g"].tolist() == ["a", "b", "c", "d", "z"]
    assert other.inputs["data"]["codes"]["g"].tolist() == [4, 1]
    np.testing.assert_allclose(other.inputs["data"]["means"], program.inputs["data"]["means"])
    assert not other.conditions and ppl.formula.new(program, with_response(y)).conditions


def test_prediction_for_known_and_unseen_groups():
    """Given the draws, a known group has its effect and a new one a fresh draw from its population."""
    from tests.inference.engines import Gaussian

    program = ppl.formula("y ~ x + (1 | g)", with_response(X))
    draws = 1000
    density = ppl.compile(program)
    values = {"level": 1.0, "b": np.array([2.0]), "g_sd": 3.0, "g_z": np.arange(4.0), "sigma": 0.5}
    fit = infer(
        program, Gaussian(mean=np.asarray(density.unconstrain(values)), sd=1e-6, warmup=1, draws=draws), progress=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = fit.predict(ppl.formula(data={"x": [0.0, 1.0], "g": ["c", "new"]}, like=fit), seed=1)
    mean, y = out["y_mean"].values.reshape(-1, 2), out["y"].values.reshape(-1, 2)
    base = 1.0 + 2.0 * (np.array([0.0, 1.0]) - X.mean())
    np.testing.assert_allclose(mean[:, 0], base[0] + 3.0 * 2.0, atol=1e-3)
    n = len(mean)
    # four standard errors of mean and standard deviation: a false alarm in 1 of 5000 runs
    assert abs(mean[:, 1].mean() - base[1]) < 4 * 3.0 / np.sqrt(n)
    assert abs(mean[:, 1].std() - 3.0) < 4 * 3.0 / np.sqrt(2 * n)
    assert abs((y - mean).std() - 0.5) < 4 * 0.5 / np.sqrt(4 * n)


@pytest.mark.parametrize(
    ("new", "match"),
    [
        ({"x": [1.0], "c": ["q"], "g": ["a"]}, "'c' is 'q' in row 0"),
        ({"x": [np.nan], "c": ["u"], "g": ["a"]}, "column 'x' has no value in row 0"),
        ({"c": ["u"], "g": ["a"]}, "x"),
        ({"x": [1.0], "c": ["u"]}, "no column 'g'"),
        ({"x": [1.0], "c": ["u"], "g": [3]}, "none could be the same"),
    ],
)
def test_new_data_that_do_not_fit(new, match):
    program = ppl.formula("y ~ x + c + (1 | g)", with_response(X))
    with pytest.raises(ppl.ModelError, match=match):
        ppl.formula.new(program, new)


# ---------------------------------------------------------------------------------------- tables


def test_every_kind_of_table_gives_the_same_program():
    raw = {"y": X.tolist(), "x": (2 * X).tolist(), "g": G.tolist(), "flag": (X > 2).tolist()}
    z = RNG.normal(size=10)
    found = []
    for table in (raw, pd.DataFrame(raw), pl.DataFrame(raw), pl.DataFrame(raw).to_arrow()):
        density = ppl.compile(ppl.formula("y ~ x + flag + (1 | g)", table))
        found.append(float(density(z[: density.dim])))
    np.testing.assert_allclose(found, found[0], rtol=1e-12)


def test_the_order_of_categories_is_kept():
    table = pd.DataFrame(with_response(X))
    table["c"] = pd.Categorical(table["c"], categories=["never", "w", "v", "u"])
    table["g"] = pd.Categorical(table["g"], categories=["d", "c", "b", "a"])
    program = ppl.formula("y ~ c + (1 | g)", table)
    assert program.coords["coefficient"].tolist() == ["c[T.v]", "c[T.u]"]
    assert program.coords["g"].tolist() == ["d", "c", "b", "a"]


def test_rows_without_a_value():
    table = pd.DataFrame(with_response(X))
    table.loc[3, "x"], table.loc[5, "g"], table.loc[7, "o"] = np.nan, None, np.nan
    with pytest.raises(ppl.ModelError, match=r"column 'x' has no value in row 3 \(2 of 12 rows"):
        ppl.formula("y ~ x + (1 | g)", table)
    with pytest.warns(UserWarning, match="2 of 12 rows were dropped.*x: 1, g: 1"):
        program = ppl.formula("y ~ x + (1 | g)", table, missing="drop")
    kept = table.drop(index=[3, 5])
    np.testing.assert_allclose(program.inputs["data"]["X"][:, 0], kept["x"])
    np.testing.assert_allclose(program.conditions["y"], kept["y"])


@pytest.mark.parametrize(
    ("text", "options", "match"),
    [
        ("y ~ zz", {}, "zz"),
        ("y ~ x + one", {}, "'one' is 3 in every row"),
        ("y ~ x + twice", {"priors": "flat"}, "linearly dependent"),
        ("y ~ log(x - 100)", {}, "is nan in row 0"),
        ("c ~ x", {}, "holds text"),
        ("y ~ x", {"family": "cauchy"}, "there is no family"),
        ("y ~ x", {"family": "poisson", "link": "logit"}, "has no link"),
        ("y ~ x", {"family": "binomial"}, "needs trials="),
        ("y ~ x", {"trials": 3}, "has no trials"),
        ("y ~ x", {"family": "poisson"}, "outside the support"),
        ("y ~ x + (1 | nope)", {}, "no column 'nope'"),
        ("b ~ x", {}, "also that of a parameter"),
        ("y ~ x", {"missing": "guess"}, "neither"),
        ("y ~ x", {"offset": "c"}, "holds text"),
        ("y ~ x + y", {}, "right of the tilde too"),
        ("y ~ each", {}, "another one in each of the 12 rows"),
        ("far ~ x", {}, "is inf in row 2"),
        ("y ~ day", {}, "'day' holds dates"),
        ("y ~ x", {"family": "binomial", "trials": 0}, "of 0 trials in row"),
    ],
)
def test_data_that_do_not_fit_are_located(text, options, match):
    table = with_response(X + 0.5, one=np.full(12, 3.0), twice=2 * X, b=X, each=np.arange(12).astype(str))
    table |= {"day": np.array(["2020-01-01"] * 12, "M8[D]"), "far": np.where(np.arange(12) == 2, np.inf, X)}
    with pytest.raises(ppl.ModelError, match=match):
        ppl.formula(text, table, **options)


# ---------------------------------------------------------------------------------------- estimates


def test_logistic_mode_equals_maximum_likelihood():
    """Two data sets; under flat priors the mode is the maximum likelihood estimate, the curvature its covariance."""
    import statsmodels.api as sm

    spector = sm.datasets.spector.load_pandas().data
    for text, table in (("GRADE ~ GPA + TUCE + PSI", spector), ("damaged ~ temperature", datasets.load("challenger"))):
        program = ppl.formula(text, table, family="bernoulli", priors="flat")
        fit = laplace(program)
        names = program.coords["coefficient"].tolist()
        exog = np.column_stack([np.ones(len(table[names[0]])), *(np.asarray(table[n], float) for n in names)])
        glm = sm.Logit(np.asarray(table[text.split()[0]], float), exog).fit(disp=False, method="newton", tol=1e-12)
        found = np.concatenate([[fit.mode["Intercept"]], fit.mode["b"]])
        np.testing.assert_allclose(found, glm.params, rtol=1e-5)
        np.testing.assert_allclose(np.sqrt(np.diag(fit.covariance))[1:], glm.bse[1:], rtol=1e-4)


def test_poisson_mode_equals_maximum_likelihood():
    import statsmodels.api as sm

    table = sm.datasets.cpunish.load_pandas().data
    program = ppl.formula("EXECUTIONS ~ np.log(INCOME) + PERPOVERTY + SOUTH", table, family="poisson", priors="flat")
    names = ["PERPOVERTY", "SOUTH"]
    exog = np.column_stack([np.ones(len(table)), np.log(table["INCOME"]), *(table[n] for n in names)])
    glm = sm.GLM(table["EXECUTIONS"], exog, family=sm.families.Poisson()).fit(tol=1e-12)
    fit = laplace(program)
    np.testing.assert_allclose([fit.mode["Intercept"], *fit.mode["b"]], glm.params, rtol=1e-5)


def test_least_squares_has_its_closed_form():
    """Stack loss, flat priors: given sigma, b is normal at the estimate; sigma^2 is inverse gamma.

    With p(b, sigma) flat, sigma^-(n - p) exp(-SSE / 2 sigma^2) is the density of sigma and b is t with n - p - 1
    degrees of freedom, so that var b = SSE / (n - p - 3) (X'X)^-1.
    """
    import statsmodels.api as sm

    table = datasets.load("stackloss")
    names = ["air_flow", "water_temperature", "acid_concentration"]
    program = ppl.formula("loss ~ " + " + ".join(names), table, priors="flat")
    exog = sm.add_constant(np.column_stack([table[n] for n in names]))
    ols = sm.OLS(table["loss"], exog).fit()
    n, p = exog.shape
    fit = infer(program, seed=2, progress=False)
    draws = np.concatenate([fit.values["Intercept"][..., None], fit.values["b"]], axis=2)
    from ppl.inference import diagnostics

    spread = np.sqrt(ols.ssr / (n - p - 3) * np.diag(np.linalg.inv(exog.T @ exog)))
    error = spread / np.sqrt(diagnostics.ess_mean(draws))
    # |z| < 4.5 for four means: a false alarm in 1 of 35000 runs; the seed is fixed
    assert np.all(np.abs(draws.mean((0, 1)) - ols.params) < 4.5 * error)
    np.testing.assert_allclose(draws.std((0, 1)), spread, rtol=0.05)
    precision = 1 / fit.values["sigma"] ** 2
    assert abs(precision.mean() * ols.ssr / (n - p - 1) - 1) < 0.05


def test_the_oracle_of_the_sleep_study_has_the_published_reml_estimate():
    data = datasets.load("sleepstudy")
    start = [20.0, 5.0, 0.0, 25.0]
    options = {"xatol": 1e-8, "fatol": 1e-10, "maxiter": 4000}
    found = minimize(lambda p: -mixed.restricted(data, *p), start, method="Nelder-Mead", options=options).x
    np.testing.assert_allclose(found, mixed.PUBLISHED["reml"], atol=6e-4)
    lines, _, G = mixed.summaries(data)
    np.testing.assert_allclose(lines.mean(0), mixed.PUBLISHED["beta"], atol=6e-4)
    s0, s1, rho, sigma = found
    W = np.array([[s0**2, rho * s0 * s1], [rho * s0 * s1, s1**2]]) + sigma**2 * G
    np.testing.assert_allclose(np.sqrt(np.diag(W) / len(lines)), mixed.PUBLISHED["error"], atol=6e-4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_varying_slopes_reproduce_the_published_estimate(seed):
    """Means and spreads of all six parameters by quadrature; those of the coefficients are the published ones."""
    from ppl.inference import diagnostics

    data = datasets.load("sleepstudy")
    program = ppl.formula("reaction ~ 1 + days + (1 + days | subject)", data, priors="flat")
    fit = infer(program, seed=seed, progress=False)
    exact = mixed.posterior(data)
    v = fit.values
    draws = {
        "beta0": v["Intercept"], "beta1": v["b"][..., 0], "s0": v["subject_sd"][..., 0], "s1": v["subject_sd"][..., 1],
        "rho": v["subject_correlation"][..., 0], "sigma": v["sigma"],
    }  # fmt: skip
    np.testing.assert_allclose([exact["beta0"][0], exact["beta1"][0]], mixed.PUBLISHED["beta"], atol=6e-4)
    for name, (mean, sd) in exact.items():
        error = sd / np.sqrt(float(diagnostics.ess_mean(draws[name])))
        # six means, |z| < 4.5: a false alarm in 1 of 24000 runs
        assert abs(draws[name].mean() - mean) < 4.5 * error, name
        assert abs(draws[name].std() / sd - 1) < 0.06, name


@pytest.mark.slow
def test_a_logistic_regression_with_groups_equals_quadrature():
    from ppl.inference import diagnostics

    rng = np.random.default_rng(5)
    group, x = np.repeat(np.arange(25), 6), rng.normal(size=150)
    chance = 1 / (1 + np.exp(-(0.3 + 1.2 * x + 1.2 * rng.normal(size=25)[group])))
    y = (rng.random(150) < chance).astype(int)
    program = ppl.formula("y ~ x + (1 | g)", {"y": y, "x": x, "g": group}, family="bernoulli", priors="flat")
    fit = infer(program, seed=1, progress=False)
    draws = {"a": fit.values["level"], "b": fit.values["b"][..., 0], "s": fit.values["g_sd"]}
    for name, (mean, sd) in mixed.logistic_intercepts(x, y, group).items():
        error = sd / np.sqrt(float(diagnostics.ess_mean(draws[name])))
        # three means, |z| < 4.5: a false alarm in 1 of 49000 runs
        assert abs(draws[name].mean() - mean) < 4.5 * error, name
        assert abs(draws[name].std() / sd - 1) < 0.08, name
