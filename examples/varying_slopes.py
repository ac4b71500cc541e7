"""Sleep study: by how much do nights of three hours slow each subject down (Belenky et al., 2003)?"""

import numpy as np

import ppl
from ppl.inference import infer
from ppl.models import datasets
from ppl.models.varying_slopes import varying_slopes

LOCATION, SCALE = np.array([250.0, 0.0]), np.array([100.0, 30.0])


def main() -> None:
    data = datasets.load("sleepstudy")
    subject, labels = ppl.index([f"{number:.0f}" for number in data["subject"]])
    program = varying_slopes(subject, data["days"], tuple(labels), LOCATION, SCALE)
    fit = infer(program.condition(y=data["reaction"]), seed=1)
    print(fit.summary(["beta", "tau", "sigma", "correlation"]))

    # Restricted maximum likelihood: 251.4 + 10.47 days; sd of intercepts 24.7, of slopes 5.9, noise 25.6.
    beta = fit.values["beta"].mean(axis=(0, 1))
    assert abs(beta[0] - 251.4) < 3.0 and abs(beta[1] - 10.47) < 0.7
    assert abs(fit.values["sigma"].mean() - 25.6) < 1.0

    # A subject of the study and one of whom nothing is known, after a week of short nights.
    later = varying_slopes(np.array([0, 1]), np.full(2, 7.0), ("308", "somebody"), LOCATION, SCALE)
    reaction = fit.predict(later, names=["y"])["y"].values
    known, unknown = reaction[..., 0], reaction[..., 1]
    print(f"day 7: subject 308 {known.mean():.0f} +- {known.std():.0f} ms, ", end="")
    print(f"somebody else {unknown.mean():.0f} +- {unknown.std():.0f} ms")
    assert known.std() < unknown.std()


if __name__ == "__main__":
    main()
