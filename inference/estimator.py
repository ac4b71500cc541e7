"""A scikit-learn estimator around a model: ``fit`` infers, ``predict`` gives posterior means of the response.

For a new row x the prediction is E(y | x, data), the mean over posterior draws of the response's mean where the model
has one (formulas do), else of predictive draws. Nothing of scikit-learn is imported before ``Estimator`` is used.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

_CHUNK = 4_000_000
"""Most numbers at a time in predictions of the built-in model."""


class _Estimator:
    """A model that is fitted by ``fit(X, y)`` and predicts the means of new rows.

    Args:
        model: None for a linear (or, by ``family``, logistic or other) regression on all columns of ``X``; a formula,
            for which ``X`` is a data frame and ``y`` its response; or a function (a ``ppl.model``) that makes a
            program from ``X``.
        target: Of a function, the site that ``y`` is conditioned on.
        mean: Of a function, a site or record with the mean of the response (for classes: the probability of the
            second, or of each); by default predictive draws of the target are averaged.
        kind: ``"regressor"`` or ``"classifier"``; by default what the family is.
        family: Of the built-in model and of a formula; see ``ppl.formula``.
        link: Likewise.
        priors: Likewise.
        engine: As for ``infer``.
        options: Further options of ``infer``, such as ``{"draws": 200}``.
        seed: Determines every draw.

    Attributes:
        fit_: The ``Fit``.
        classes_: Of a classifier, the labels.
        coef_: Of the built-in model, posterior means of the coefficients.
        intercept_: Likewise.

    Example:
        >>> from ppl.inference import Estimator
        >>> X = np.arange(8.0)[:, None]
        >>> estimator = Estimator(options={"draws": 100}).fit(X, 2 * X[:, 0] + 1)
        >>> bool(abs(estimator.predict([[10.0]])[0] - 21) < 0.2)
        True
    """

    def __init__(
        self,
        model: Any = None,
        *,
        target: str = "y",
        mean: str | None = None,
        kind: str | None = None,
        family: str = "gaussian",
        link: str | None = None,
        priors: Any = "weak",
        engine: Any = None,
        options: Any = None,
        seed: int = 0,
    ) -> None:
        self.model = model
        self.target = target
        self.mean = mean
        self.kind = kind
        self.family = family
        self.link = link
        self.priors = priors
        self.engine = engine
        self.options = options
        self.seed = seed

    # ------------------------------------------------------------------------------------------ scikit-learn's hooks

    def _classifies(self) -> bool:
        if self.kind not in (None, "regressor", "classifier"):
            raise ValueError(f"kind={self.kind!r} is neither 'regressor' nor 'classifier'")
        binary = self.family == "bernoulli" and not callable(self.model)
        return binary if self.kind is None else self.kind == "classifier"

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, RegressorTags

        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.target_tags.required = True
        if self._classifies():
            tags.estimator_type, tags.classifier_tags = "classifier", ClassifierTags()
            tags.classifier_tags.multi_class = callable(self.model)
        else:
            tags.estimator_type, tags.regressor_tags = "regressor", RegressorTags()
        tags.input_tags.string = isinstance(self.model, str)
        return tags

    def __sklearn_clone__(self) -> Any:
        """A new estimator with the same settings; models are shared, and with them what was compiled."""
        return type(self)(**self.get_params(deep=False))  # type: ignore[attr-defined]

    def __getstate__(self) -> dict[str, Any]:
        """The state without the fit, which is saved by ``fit_.save``; the built-in model predicts without it."""
        state: dict[str, Any] = dict(super().__getstate__())  # type: ignore[call-overload]
        state.pop("fit_", None)
        return state

    # ------------------------------------------------------------------------------------------ fitting

    def fit(self, X: Any, y: Any = None) -> Any:
        """Infer the posterior given rows of ``X`` and their responses.

        Args:
            X: Matrix or data frame, one row per observation.
            y: Responses or labels, shape (rows,).

        Returns:
            The estimator.

        Raises:
            ValueError: The data do not fit the model; see also ``ppl.ModelError``, which is one.
        """
        from .drive import infer

        X, y = self._validated(X, y)
        if self._classifies():
            y = self._coded(y)
        program = self._program(X, y)
        options = {"progress": False, **dict(self.options or {})}
        self.fit_ = infer(program, self.engine, seed=self.seed, **options)
        if self.model is None:
            values = {name: v.reshape(-1, *v.shape[2:]) for name, v in self.fit_.values.items()}
            self.draws_ = {name: values[name] for name in ("Intercept", "b", "sigma") if name in values}
            self.coef_, self.intercept_ = values["b"].mean(axis=0), float(values["Intercept"].mean())
        return self

    def _validated(self, X: Any, y: Any) -> tuple[Any, Any]:
        from sklearn.utils.validation import _check_y, check_consistent_length, validate_data

        numeric = not self._classifies()
        if self.model is None:
            return validate_data(self, X, y, y_numeric=numeric, dtype="numeric", ensure_min_samples=1)
        validate_data(self, X, y, skip_check_array=True)
        y = _check_y(y, y_numeric=numeric, estimator=self)
        check_consistent_length(X, y)
        return X, y

    def _coded(self, y: Any) -> np.ndarray:
        from sklearn.utils.multiclass import check_classification_targets

        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        count = len(self.classes_)
        if count < 2:
            raise ValueError(f"the data have one class only, {self.classes_[0]!r}; a classifier needs two")
        if count > 2 and not callable(self.model):
            raise ValueError(
                f"Only binary classification is supported by this model; the data have {count} classes. For more, "
                "write a model of a Categorical response and pass it: Estimator(model, kind='classifier')."
            )
        return codes.astype(np.int32)

    def _program(self, X: Any, y: Any) -> Any:
        """The conditioned program."""
        from ppl.formula import formula, of_matrix

        if self.model is None:
            if self.family == "binomial":
                raise ValueError("the built-in model has no trials; use a formula or a model of your own")
            return of_matrix(np.asarray(X, float), y, self._names(), self.family, self.link, self.priors)
        if isinstance(self.model, str):
            from ppl.formula_text import parse

            table = {**self._columns(X), parse(self.model).response.strip("`"): y}
            return formula(self.model, table, family=self.family, link=self.link, priors=self.priors)
        return self.model(X).condition({self.target: y})

    def _names(self) -> tuple[str, ...]:
        names = getattr(self, "feature_names_in_", None)
        return tuple(f"x{i}" for i in range(self.n_features_in_)) if names is None else tuple(map(str, names))  # type: ignore[attr-defined]

    def _columns(self, X: Any) -> Mapping[Any, Any]:
        """A table as a mapping; the columns of a matrix are x0, x1, ..."""
        if isinstance(X, Mapping):
            return X
        if hasattr(X, "columns") or hasattr(X, "column_names"):
            names = list(getattr(X, "column_names", None) or X.columns)
            return {name: X[name] for name in names}
        X = np.asarray(X)
        return {f"x{i}": column for i, column in enumerate(X.T)}

    # ------------------------------------------------------------------------------------------ predicting

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Posterior means of the responses to new rows; of a classifier, the likeliest labels.

        Args:
            X: As in ``fit``.
            return_std: Whether to return the standard deviations of the predictive distributions too.

        Returns:
            Predictions, shape (rows,); with ``return_std`` a pair.
        """
        X = self._new(X)
        if self._classifies():
            if return_std:
                raise ValueError("a classifier predicts labels, which have no standard deviation; use predict_proba")
            return self.classes_[np.argmax(self._chances(X), axis=1)]
        if self.model is None:
            mean, std = self._linear(X, return_std)
        else:
            mean, std = self._means(X, return_std)
        return (mean, std) if return_std else mean

    @property
    def predict_proba(self) -> Any:
        """Of a classifier: probabilities of the classes for new rows, ``predict_proba(X)`` of shape (rows, classes)."""
        if not self._classifies():
            raise AttributeError("predict_proba is there for classifiers: family='bernoulli' or kind='classifier'")
        return self._predict_proba

    def _predict_proba(self, X: Any) -> np.ndarray:
        return self._chances(self._new(X))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R^2 of the predictions; of a classifier, the share of right labels.

        Args:
            X: Rows.
            y: Their responses.
            sample_weight: Weights of the rows.
        """
        from sklearn.metrics import accuracy_score, r2_score

        measure = accuracy_score if self._classifies() else r2_score
        return float(measure(y, self.predict(X), sample_weight=sample_weight))

    def _new(self, X: Any) -> Any:
        from sklearn.utils.validation import check_is_fitted, validate_data

        check_is_fitted(self, "n_features_in_")
        if self.model is None:
            return np.asarray(validate_data(self, X, reset=False, dtype="numeric"), float)
        validate_data(self, X, reset=False, skip_check_array=True)
        if not hasattr(self, "fit_"):
            raise ValueError("this estimator was unpickled, and its fit is not part of a pickle: fit it again")
        return X

    def _simulated(self, X: Any, name: str) -> np.ndarray:
        """Draws of a site or record for new rows, shape (draws, rows, ...)."""
        if isinstance(self.model, str):
            from ppl.formula import formula

            program = formula(None, self._columns(X), like=self.fit_.program)
        else:
            program = self.model(X)
        values = self.fit_.predict(program, names=[name], seed=self.seed)[name].values
        return values.reshape(-1, *values.shape[2:])

    def _site(self) -> str:
        """The response's site."""
        if isinstance(self.model, str):
            from ppl.formula_source import response_name

            return response_name(self.fit_.program.model.design)
        return self.target

    def _means(self, X: Any, spread: bool) -> tuple[np.ndarray, np.ndarray | None]:
        mean = f"{self._site()}_mean" if isinstance(self.model, str) else self.mean
        draws = self._simulated(X, self._site()) if spread or mean is None else None
        center = draws if mean is None else self._simulated(X, mean)
        assert center is not None
        return center.mean(axis=0), None if draws is None else draws.std(axis=0)

    def _chances(self, X: Any) -> np.ndarray:
        if self.model is None:
            second = self._linear(X, False)[0]
            return np.column_stack([1 - second, second])
        mean = f"{self._site()}_mean" if isinstance(self.model, str) else self.mean
        if mean is None:
            draws = self._simulated(X, self.target)
            return np.column_stack([(draws == code).mean(axis=0) for code in range(len(self.classes_))])
        found = self._simulated(X, mean).mean(axis=0)
        return found if found.ndim == 2 else np.column_stack([1 - found, found])

    def _linear(self, X: np.ndarray, spread: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """The built-in model's means, row by row the same whatever the other rows."""
        from ppl.formula_families import choose

        link, draws = choose(self.family, self.link)[1], self.draws_
        means, spreads = [], []
        step = max(1, _CHUNK // len(draws["Intercept"]))
        for start in range(0, len(X), step):
            eta = draws["Intercept"] + np.einsum("rc,dc->rd", X[start : start + step], draws["b"])
            mu = _INVERSE[link](eta)
            means.append(mu.mean(axis=1))
            if spread:
                if self.family != "gaussian":
                    raise ValueError("return_std is there for the gaussian family of the built-in model")
                spreads.append(np.sqrt(mu.var(axis=1) + (draws["sigma"] ** 2).mean()))
        return np.concatenate(means), np.concatenate(spreads) if spread else None


def _cloglog(eta: np.ndarray) -> np.ndarray:
    return -np.expm1(-np.exp(eta))


def _probit(eta: np.ndarray) -> np.ndarray:
    from scipy.special import ndtr

    return ndtr(eta)


def _logit(eta: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * eta))


_INVERSE: dict[str, Callable] = {
    "identity": lambda eta: eta,
    "log": np.exp,
    "logit": _logit,
    "probit": _probit,
    "cloglog": _cloglog,
}


@functools.cache
def _made() -> type:
    """The class with scikit-learn's base under it."""
    try:
        from sklearn.base import BaseEstimator
    except ImportError:
        raise ImportError("Estimator needs scikit-learn: pip install 'ppl-jax[sklearn]'") from None
    names = {"__module__": __name__, "__qualname__": "Estimator", "__doc__": _Estimator.__doc__}
    return type("Estimator", (_Estimator, BaseEstimator), names)


def __getattr__(name: str) -> Any:
    """Make ``Estimator`` at first use."""
    if name == "Estimator":
        return _made()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
