"""Eight schools: does coaching raise SAT scores, and by how much in each school?"""

import numpy as np

from ppl.inference import infer
from ppl.models import datasets
from ppl.models.eight_schools import eight_schools_noncentred


def main() -> None:
    data = datasets.load("eight_schools")
    program = eight_schools_noncentred(data["standard_error"]).condition(y=data["effect"])
    print(program.graph())

    fit = infer(program, seed=1)
    print(fit.summary(["mu", "tau", "theta"]))

    # Raw effects span -3 to 28 points; the schools are pulled together strongly (Rubin, 1981).
    theta = fit.values["theta"].mean(axis=(0, 1))
    for school, raw, shrunken in zip(data["school"], data["effect"], theta, strict=True):
        print(f"school {school}: raw effect {raw:5.1f}, estimate {shrunken:4.1f}")
    assert 5.0 < theta[0] < 7.5 and np.ptp(theta) < 4.0

    # Does the model reproduce the largest effect? The share of replicated data whose maximum exceeds 28.
    replicated = fit.predict(names=["y"])["y"].values
    share = (replicated.max(axis=-1) > data["effect"].max()).mean()
    print(f"replicated maximum exceeds the observed one with probability {share:.2f}")
    assert 0.1 < share < 0.7


if __name__ == "__main__":
    main()
