"""Lung cancer: do women live longer? Weibull regression with a third of the patients censored."""

import numpy as np

from ppl.inference import infer
from ppl.models import datasets
from ppl.models.survival import weibull_survival


def main() -> None:
    data = datasets.load("lung")
    X = np.stack([data["sex"] - 1.0, (data["age"] - 62.0) / 10.0], axis=1)
    program = weibull_survival(X, data["status"]).condition(time=data["time"] / 365.25)
    fit = infer(program, seed=1)
    print(fit.summary())

    # Maximum likelihood, with time ratios exp(beta): 0.382 (se 0.128) for women, shape 1.33.
    beta = fit.values["beta"].mean(axis=(0, 1))
    print(f"women live {np.exp(beta[0]):.2f} times as long, ten years of age multiply by {np.exp(beta[1]):.2f}")
    assert abs(beta[0] - 0.382) < 0.05 and abs(fit.values["shape"].mean() - 1.33) < 0.05


if __name__ == "__main__":
    main()
