"""Challenger: how likely was O-ring damage at 31 degrees Fahrenheit, given 23 earlier flights?"""

import numpy as np

from ppl.inference import infer
from ppl.models import datasets
from ppl.models.logistic import logistic_regression


def main() -> None:
    data = datasets.load("challenger")
    temperature = data["temperature"][:, None]
    program = logistic_regression(temperature).condition(y=data["damaged"].astype(int))
    fit = infer(program, seed=1)
    print(fit.summary())

    # Maximum likelihood gives a slope of -0.232 (Dalal, Fowlkes and Hoadley, 1989).
    slope = fit.values["beta"][..., 0]
    assert -0.32 < slope.mean() < -0.15
    logit = fit.values["alpha"] + slope * (31.0 - temperature.mean())
    damage = 1.0 / (1.0 + np.exp(-logit))
    print(f"P(damage at 31 F) = {damage.mean():.2f}, 5% to 95%: {np.quantile(damage, [0.05, 0.95]).round(2)}")
    assert damage.mean() > 0.9


if __name__ == "__main__":
    main()
