"""Snowshoe hares: 68 were caught in six nights. How many are there? The unknown animals are summed out."""

import numpy as np

from ppl.inference import infer
from ppl.models import datasets
from ppl.models.capture_recapture import closed_population


def main() -> None:
    captures = datasets.load("snowshoe_hare")["captures"].astype(int)
    rows = np.concatenate([captures, np.zeros(60, int)])
    fit = infer(closed_population(len(rows), 6).condition(y=rows), seed=1)
    print("\n".join(line for line in fit.manifest["plan"] if "summed" in line))
    print(fit.summary(["p", "psi", "N"]))

    # Equal catchability: the maximum likelihood estimate solves n / (1 - (1 - p)^T) = captures / (T p)
    estimate = 75.4
    low, high = np.quantile(fit.values["N"], (0.025, 0.975))
    print(f"N is {fit.values['N'].mean():.1f}, 95% between {low:.0f} and {high:.0f}; maximum likelihood {estimate}")
    assert abs(fit.values["N"].mean() - estimate) < 2.0 and fit.values["N"].min() >= 68


if __name__ == "__main__":
    main()
