"""Penguins: one measurement, two groups. Flippers of 342 birds as a mixture whose labels are summed out."""

import numpy as np

from ppl.inference import infer
from ppl.models import datasets
from ppl.models.mixture import gaussian_mixture


def main() -> None:
    data = datasets.load("penguins")
    flipper = data["flipper_length_mm"]
    fit = infer(gaussian_mixture(len(flipper), 200.0, 15.0).condition(y=flipper), seed=1)
    print(fit.summary(["mu", "sigma", "w"]))

    # The long-flippered component should be the gentoo penguins, which the model has never heard of.
    gentoo = data["species"] == "Gentoo"
    low, high = fit.values["mu"].mean(axis=(0, 1))
    print(f"components at {low:.1f} and {high:.1f} mm, weight of the upper {1 - fit.values['w'].mean():.2f}")
    print(f"gentoo: mean {flipper[gentoo].mean():.1f} mm, share {gentoo.mean():.2f}")
    assert abs(high - flipper[gentoo].mean()) < 2.0
    assert abs(1 - fit.values["w"].mean() - gentoo.mean()) < 0.08
    assert np.all(fit.values["gap"] > 0)


if __name__ == "__main__":
    main()
