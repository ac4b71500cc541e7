"""Stack loss: which operating conditions of a plant drive its loss of ammonia (Brownlee, 1965)?"""

import numpy as np

from ppl.inference import infer
from ppl.models import datasets
from ppl.models.linear import linear_regression

COLUMNS = ("air_flow", "water_temperature", "acid_concentration")


def main() -> None:
    data = datasets.load("stackloss")
    X = np.stack([data[name] for name in COLUMNS], axis=1)
    fit = infer(linear_regression(X, 15.0, 10.0).condition(y=data["loss"]), seed=1)
    print(fit.summary())

    # With weak priors the posterior mean is close to least squares.
    design = np.column_stack([np.ones(len(X)), X - X.mean(axis=0)])
    exact = np.linalg.lstsq(design, data["loss"], rcond=None)[0][1:]
    beta = fit.values["beta"]
    for name, mean, sd, least_squares in zip(
        COLUMNS, beta.mean(axis=(0, 1)), beta.std(axis=(0, 1)), exact, strict=True
    ):
        print(f"{name:20} {mean:7.3f} +- {sd:.3f}   least squares {least_squares:7.3f}")
        assert abs(mean - least_squares) < 0.25 * sd


if __name__ == "__main__":
    main()
