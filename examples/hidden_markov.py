"""The Nile at Aswan, 1871-1970, as a chain of two hidden states: when did the level of the flow change?"""

import numpy as np

from ppl.inference import infer
from ppl.models import datasets
from ppl.models.hidden_markov import hidden_markov


def main() -> None:
    data = datasets.load("nile")
    years = tuple(data["year"].astype(int).tolist())
    fit = infer(hidden_markov(years, 2, 900.0, 170.0).condition(y=data["volume"]), seed=1)
    print("\n".join(line for line in fit.manifest["plan"] if "summed" in line))
    print(fit.summary(["mu", "sigma", "P"]))

    high = fit.probabilities("z").sel(z_state=1)
    change = int(high["time"][np.flatnonzero(high.values > 0.5)[-1]]) + 1
    print(f"the high level ends before {change}; high until 1897: {float(high.sel(time=1897)):.2f}, "
          f"in 1900: {float(high.sel(time=1900)):.2f}")  # fmt: skip
    # Cobb (1978) and many since find one change, in 1898 or 1899, from about 1100 to about 850
    assert change in (1898, 1899, 1900)
    low_mean, high_mean = fit.values["mu"].mean(axis=(0, 1))
    assert abs(low_mean - 850.0) < 30.0 and abs(high_mean - 1098.0) < 40.0


if __name__ == "__main__":
    main()
