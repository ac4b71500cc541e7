"""The Nile at Aswan, 1871-1970: an autoregressive level seen through noise, and the drop of 1899."""

from ppl.inference import infer
from ppl.models import datasets
from ppl.models.hidden_autoregression import hidden_autoregression


def main() -> None:
    data = datasets.load("nile")
    flow = data["volume"] / 100.0
    fit = infer(hidden_autoregression(len(flow), 9.0, 1.0).condition(y=flow), seed=1)
    print(fit.summary(["mu", "phi", "tau", "sigma"]))

    # A local level model has sds 1.229 (noise) and 0.383 (level) by maximum likelihood (Durbin and Koopman, 2012).
    assert 1.0 < fit.values["sigma"].mean() < 1.4 and 0.2 < fit.values["tau"].mean() < 1.0
    level = fit.values["x"]
    year = data["year"].astype(int).tolist().index(1899)
    drop = level[..., :year].mean(axis=-1) - level[..., year:].mean(axis=-1)
    print(f"mean level before 1899 minus after: {drop.mean():.2f} +- {drop.std():.2f} x 10^10 m^3 a year")
    assert 1.8 < drop.mean() < 3.0


if __name__ == "__main__":
    main()
