"""A short tour on real data: write a model, condition it, infer, look, predict, save. Run by ``make demo``."""

import shutil
import time

START = time.perf_counter()

from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402

import ppl  # noqa: E402
from ppl.inference import ess, infer  # noqa: E402
from ppl.models import datasets  # noqa: E402
from ppl.models.varying_slopes import varying_slopes  # noqa: E402


def trace_plot(fit, names, path):
    """Densities and traces of scalar quantities, one row each."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(names), 2, figsize=(10, 1.8 * len(names)), squeeze=False)
    for (name, index), (left, right) in zip(names, axes, strict=True):
        for chain in fit.values[name][(..., *index)]:
            left.hist(chain, bins=30, density=True, histtype="step", alpha=0.5)
            right.plot(chain, linewidth=0.3)
        left.set_ylabel(name + (str(list(index)) if index else ""))
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main(folder: str = "demo-output") -> None:
    out = Path(folder)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)

    # Reaction times of 18 subjects over ten days of short sleep (Belenky et al., 2003).
    data = datasets.load("sleepstudy")
    subject, labels = ppl.index([f"{number:.0f}" for number in data["subject"]])
    program = varying_slopes(
        subject, data["days"], tuple(labels), np.array([250.0, 0.0]), np.array([100.0, 30.0])
    ).condition(y=data["reaction"])
    print(program.graph(), end="\n\n")

    fit = infer(program, until=ess(2000), seed=1)
    print(fit.summary(["beta", "tau", "sigma", "correlation"]), end="\n\n")

    coefficients = fit.posterior["b"].mean(("chain", "draw"))
    slopes = coefficients.values[:, 1]
    print(f"slowed down most: subject {labels[slopes.argmax()]}, by {slopes.max():.1f} ms a day")

    trace_plot(fit, [("beta", (0,)), ("beta", (1,)), ("tau", (1,)), ("sigma", ())], out / "trace.png")
    fit.save(out / "fit.zarr")
    print(f"wrote {out / 'trace.png'} and {out / 'fit.zarr'} in {time.perf_counter() - START:.1f} s, imports included")


if __name__ == "__main__":
    main()
