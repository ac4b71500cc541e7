"""The scikit-learn estimator: the library's own checks, and predictions that equal what the draws say."""

from __future__ import annotations

import subprocess
import sys
import warnings

import jax
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import ppl
from ppl import dist
from ppl.inference import Estimator, mcmc

pytestmark = pytest.mark.standard_promotion

QUICK = mcmc.PooledHMC(chains=8, draws=100, max_draws=100)
RNG = np.random.default_rng(11)
X = RNG.normal(size=(40, 2))
Y = 1.0 + X @ [2.0, -1.0] + 0.1 * RNG.normal(size=40)

EXPECTED_TO_FAIL: dict[str, str] = {}
"""Checks of scikit-learn that do not apply, with the reason. There are none."""


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gaussian", "bernoulli"])
def test_the_checks_of_scikit_learn(family):
    estimator = Estimator(family=family, engine=QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = check_estimator(estimator, expected_failed_checks=EXPECTED_TO_FAIL, on_fail=None, on_skip=None)
    failed = {r["check_name"]: repr(r["exception"]) for r in found if r["status"] == "failed"}
    assert not failed
    skipped = {r["check_name"] for r in found if r["status"] == "skipped"}
    assert skipped <= {"check_array_api_input"}  # needs an environment variable of SciPy
    assert sum(r["status"] == "passed" for r in found) >= 45


def test_importing_inference_does_not_import_scikit_learn():
    code = "import sys, ppl.inference, ppl.inference.estimator; print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_settings_are_scikit_learns():
    estimator = Estimator("y ~ x", family="bernoulli", seed=3)
    assert estimator.get_params()["seed"] == 3 and is_classifier(estimator) and not is_regressor(estimator)
    estimator.set_params(family="gaussian", options={"draws": 7})
    assert is_regressor(estimator) and estimator.options == {"draws": 7}
    assert not hasattr(estimator, "predict_proba")
    other = clone(estimator)
    assert other is not estimator and other.get_params() == estimator.get_params()
    with pytest.raises(ValueError, match="Invalid parameter"):
        estimator.set_params(nonsense=1)


def test_the_built_in_regression():
    estimator = Estimator(engine=QUICK).fit(X, Y)
    draws = {name: value.reshape(-1, *value.shape[2:]) for name, value in estimator.fit_.values.items()}
    new = RNG.normal(size=(5, 2))
    eta = draws["Intercept"][:, None] + draws["b"] @ new.T
    mean, std = estimator.predict(new, return_std=True)
    np.testing.assert_allclose(mean, eta.mean(0))
    np.testing.assert_allclose(std**2, eta.var(0) + (draws["sigma"] ** 2).mean())
    np.testing.assert_allclose(estimator.coef_, [2.0, -1.0], atol=0.1)
    assert estimator.n_features_in_ == 2 and estimator.score(X, Y) > 0.99
    again = Estimator()
    again.__setstate__(estimator.__getstate__())  # as a pickle would
    assert not hasattr(again, "fit_")
    np.testing.assert_allclose(again.predict(new), mean)
    with pytest.raises(ValueError, match="3 features"):
        estimator.predict(np.zeros((1, 3)))


def test_columns_of_a_frame_keep_their_names_and_order():
    estimator = Estimator(engine=QUICK).fit(pd.DataFrame(X, columns=["u", "v"]), Y)
    assert estimator.feature_names_in_.tolist() == ["u", "v"]
    assert estimator.fit_.program.coords["coefficient"].tolist() == ["u", "v"]
    with pytest.raises(ValueError, match="feature names"):
        estimator.predict(pd.DataFrame(X, columns=["v", "u"]))


def test_pipelines_cross_validation_and_search():
    pipeline = make_pipeline(StandardScaler(), Estimator(engine=QUICK))
    assert np.all(cross_val_score(pipeline, X, Y, cv=2) > 0.95)
    tight = {"b": dist.Normal(0.0, 1e-4)}
    search = GridSearchCV(Estimator(engine=QUICK), {"priors": [tight, "weak"]}, cv=2).fit(X, Y)
    assert search.best_params_["priors"] == "weak" and search.best_score_ > 0.95
    assert search.cv_results_["mean_test_score"][0] < 0.5


def test_a_formula_with_groups_predicts_for_new_ones():
    groups = np.repeat(list("abcd"), 10)
    y = Y + 3.0 * (groups == "b")
    table = pl.DataFrame({"x": X[:, 0], "z": X[:, 1], "g": groups})
    estimator = Estimator("y ~ x + z + (1 | g)", engine=QUICK).fit(table, y)
    assert estimator.score(table, y) > 0.98
    new = pl.DataFrame({"x": [0.0, 0.0, 0.0], "z": [0.0, 0.0, 0.0], "g": ["a", "b", "new"]})
    with pytest.warns(UserWarning, match="new labels new"):
        mean, std = estimator.predict(new, return_std=True)
    np.testing.assert_allclose(mean[:2], [1.0, 4.0], atol=0.3)
    assert std[2] > 3 * std[0]  # an unseen group is uncertain by as much as groups differ


def test_a_classifier_of_a_formula():
    labels = np.where(X[:, 0] + 0.3 * RNG.normal(size=40) > 0, "yes", "no")
    table = pd.DataFrame(X, columns=["x", "z"])
    estimator = Estimator("answer ~ x + z", family="bernoulli", engine=QUICK).fit(table, labels)
    chances = estimator.predict_proba(table)
    assert estimator.classes_.tolist() == ["no", "yes"] and chances.shape == (40, 2)
    np.testing.assert_allclose(chances.sum(1), 1.0)
    draws = {name: value.reshape(-1, *value.shape[2:]) for name, value in estimator.fit_.values.items()}
    eta = draws["Intercept"][:, None] + draws["b"] @ X.T
    np.testing.assert_allclose(chances[:, 1], (1 / (1 + np.exp(-eta))).mean(0), rtol=1e-6)
    assert estimator.predict(table).tolist() == np.where(chances[:, 1] > 0.5, "yes", "no").tolist()
    with pytest.raises(ValueError, match="binary"):
        estimator.fit(table, np.arange(40) % 3)


@ppl.model
def three(X):
    w = ppl.sample("w", dist.Normal(0.0, 5.0).expand([2, 3]))

    @ppl.plate("row", X)
    def row(x):
        ppl.record("chance", jax.nn.softmax(x @ w))
        ppl.sample("y", dist.Categorical(logits=x @ w))


def test_a_model_of_ones_own_with_three_classes():
    labels = np.array(["r", "g", "b"])[np.argmax(X @ np.array([[3.0, -3.0, 0.0], [0.0, 0.0, 3.0]]), axis=1)]
    estimator = Estimator(three, kind="classifier", mean="chance", engine=QUICK).fit(X, labels)
    assert estimator.predict_proba(X).shape == (40, 3) and estimator.score(X, labels) > 0.9
    by_draws = Estimator(three, kind="classifier", engine=QUICK).fit(X, labels).predict_proba(X)
    assert np.abs(by_draws - estimator.predict_proba(X)).max() < 5 * 0.5 / np.sqrt(800)


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match="one class"):
        Estimator(family="bernoulli").fit(X, np.zeros(40, int))
    with pytest.raises(ValueError, match="neither 'regressor'"):
        Estimator(kind="cluster").fit(X, Y)
    with pytest.raises(ValueError, match="inconsistent"):
        Estimator(three, engine=QUICK).fit(X, Y[:3])
