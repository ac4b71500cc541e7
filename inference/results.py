"""``Fit``: the labelled result of a run.

A fit holds the unconstrained draws, the density they belong to and the program behind it. Everything else
is derived when it is asked for: constrained values with names, dims and coordinates, predictive draws,
pointwise log likelihoods.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from . import groups
from . import precision as floats
from .groups import Arrays


@dataclass(frozen=True, eq=False)
class Fit:
    """Draws with names.

    Attributes:
        program: The program, or None for a bare log density or a fit loaded without it.
        density: The log density of the draws, or None likewise.
        draws: The raw unconstrained draws and statistics: ``core.Draws``, or the same read from a run directory.
        manifest: Facts about the run: versions, seed, options, plan, timings.
        notes: What the run has to say about how it ended.
        stored: Groups read from a file, by name.

    Example:
        >>> from ppl.inference import infer
        >>> fit = infer(lambda z: -0.5 * (z**2).sum(), init=np.zeros(1), progress=False)
        >>> fit.values["z"].shape[2]
        1
    """

    program: Any
    density: Any
    draws: Any
    manifest: dict[str, Any]
    notes: tuple[str, ...] = ()
    stored: dict[str, Any] = field(default_factory=dict)
    _groups: dict[str, Arrays] = field(default_factory=dict, init=False)
    _datasets: dict[str, Any] = field(default_factory=dict, init=False)

    @cached_property
    def values(self) -> Arrays:
        """Latent sites and records by name, shape (chains, draws, ...), as NumPy arrays."""
        if "posterior" in self.stored:
            return {name: value.values for name, value in self.stored["posterior"].data_vars.items()}
        with self._context():
            return groups.generated(self, self.draws.positions)

    @cached_property
    def data(self) -> Any:
        """All groups as an ``xarray.DataTree``; heavy groups are computed when they are read."""
        from .export import tree

        return tree(self)

    def __getattr__(self, name: str) -> Any:
        """A group by name (``fit.posterior``, ``fit.log_likelihood``, ...), as an ``xarray.Dataset``."""
        if name in type(self).__dict__:
            return object.__getattribute__(self, name)  # a property failed: show its own error
        if name not in groups.LIGHT + groups.HEAVY:
            raise AttributeError(f"Fit has no attribute {name!r}")
        data = self.dataset(name)
        if not data.data_vars:
            why = "" if self.program is not None else "; the program is not known: load(path, program=...)"
            raise AttributeError(f"this fit has no group {name!r}{why}")
        return data

    def __dir__(self) -> Iterable[str]:
        """Attributes, groups included."""
        return [*super().__dir__(), *groups.LIGHT, *groups.HEAVY]

    def dataset(self, name: str) -> Any:
        """A group as an ``xarray.Dataset``, empty where the fit has no such group."""
        if name not in self._datasets:
            from .export import dataset

            with self._context():
                self._datasets[name] = dataset(self, name)
        return self._datasets[name]

    def group(self, name: str) -> Arrays:
        """The arrays of a heavy group, computed once."""
        if name not in self._groups:
            with self._context():
                self._groups[name] = groups.compute(self, name)
        return self._groups[name]

    @property
    def labels(self) -> list[str]:
        """Names of the unconstrained coordinates."""
        if "unconstrained_posterior" in self.stored:
            return list(self.stored["unconstrained_posterior"].coords["unconstrained"].values.tolist())
        labels = getattr(self.density, "labels", None)
        return list(labels) if labels is not None else [f"z[{i}]" for i in range(self.draws.shape[2])]

    @property
    def log_evidence(self) -> float:
        """Log of the integral of the density (the marginal likelihood of a program), where the engine estimated it.

        Raises:
            AttributeError: The engine gives no evidence; ``ppl.inference.bridge(fit)`` estimates it from the draws.
        """
        return self._evidence("log_evidence")

    @property
    def log_evidence_se(self) -> float:
        """Standard error of ``log_evidence``."""
        return self._evidence("log_evidence_se")

    def _evidence(self, name: str) -> float:
        if name not in self.draws.info:
            raise AttributeError(
                "this run estimated no evidence. Estimate it from the draws with ppl.inference.bridge(fit), or sample "
                "with mcmc.Tempering()."
            )
        return float(self.draws.info[name])

    @property
    def _codes(self) -> np.ndarray:
        """Which unconstrained coordinates are codes of finite sites."""
        count = len(getattr(self.density, "finite", None) or ())
        if not count:
            names = set(self.manifest.get("codes") or ())
            count = sum(label.partition("[")[0] in names for label in self.labels) if names else 0
        dim = self.draws.shape[2]
        return np.arange(dim) >= dim - count

    @property
    def divergences(self) -> int:
        """Number of divergent transitions among the draws."""
        return int(np.sum(self.draws.stats.get("diverging", 0)))

    def warnings(self) -> list[str]:
        """Why these draws may not be trusted, in words; empty if nothing is known against them."""
        from . import diagnostics

        found = list(self.notes)
        if self.divergences:
            share = self.divergences / (self.draws.shape[0] * self.draws.shape[1])
            risk = ": the draws may miss where the density curves sharply" if share > 1e-3 else ""
            found.append(f"{self.divergences} divergent transitions ({share:.2g} of all){risk}")
        rhat = self.draws.info.get("nested_rhat", getattr(self.draws, "split_rhat", None))
        with np.errstate(all="ignore"):
            rhat = np.asarray(diagnostics.rhat(self.draws.positions)) if rhat is None else rhat
        rhat = np.array(rhat)
        rhat[self._codes & np.isnan(rhat)] = 1.0  # a code that never changes may be certain
        worst = int(np.argmax(np.nan_to_num(rhat, nan=np.inf)))
        if not rhat[worst] <= 1.01:
            found.append(f"R-hat {rhat[worst]:.3f} at {self.labels[worst]}: the chains do not agree, draw longer")
        # what the engine has to say of divergences and R-hat is said above
        advice = [str(text) for text in self.draws.info.get("warnings", ())]
        return found + [text for text in advice if "diverged" not in text and "split R-hat" not in text]

    def summary(self, names: Iterable[str] | None = None) -> Any:
        """Mean, spread, quantiles, effective sample sizes and R-hat of every quantity.

        Args:
            names: Only these sites.
        """
        from .summary import summarize

        return summarize(self, names)

    def predict(
        self,
        program: Any = None,
        names: Iterable[str] | None = None,
        seed: int = 0,
        draws: int | None = None,
        *,
        horizon: int | Mapping[str, int] | None = None,
        past: bool = False,
        path: Any = None,
        reduce: Any = None,
        memory: int | None = None,
    ) -> Any:
        """Posterior predictive draws, as an ``xarray.Dataset``.

        A program with a longer chain, or ``horizon``, gives a forecast: the chain goes on from each posterior draw
        of its states (and from the data, where later steps read them). Of the longer chains the new steps come back.

        Args:
            program: The model with new inputs (or a ``do``); None replicates the data. Its conditions do not count,
                except that of values with gaps (``missing=``) the known elements stay and the others are drawn given
                them.
            names: Sites to return; by default what is not simply a posterior draw.
            seed: Determines the draws.
            draws: Use only this many draws of every chain, evenly spaced.
            horizon: Steps by which the program's chain (``ppl.markov``) goes on; ``{chain: steps}`` where it has
                several.
            past: Return the steps of the fit before the new ones: latent sites at their draws, observed ones at
                their data.
            path: A new directory: draws are written there as a Zarr store, piece by piece, and opened lazily.
            reduce: Return a statistic over all draws instead of the draws: ``"mean"``, ``"sd"``, ``"median"``,
                ``"min"``, ``"max"`` or several of them; ``"quantiles"`` or probabilities; or a function of an array
                (draws, ...), which is given all draws of some elements at a time.
            memory: Bytes that ``path`` or ``reduce`` may take beside the fit and the program's data; one GiB.

        Raises:
            ppl.ModelError: If the program's latent sites do not match the posterior's, or a chain cannot go on.
            MemoryError: If the draws, or with ``memory`` one piece of the work, do not fit; before computing.
            FileExistsError: If ``path`` exists.
        """
        from .predict import predict

        large = {"path": path, "reduce": reduce, "memory": memory}
        with self._context():
            return predict(self, program, names, seed, draws, horizon=horizon, past=past, **large)

    def probabilities(self, name: str, draws: bool = False) -> Any:
        """Posterior probabilities of the states of a finite site that was summed out of the density.

        They are the mean over draws of the exact conditional probabilities, which is more precise than the
        frequencies among the draws of the site (Rao and Blackwell).

        Args:
            name: The site.
            draws: Return the conditional probabilities of every draw, (chains, draws, ..., states), as an array.

        Returns:
            An ``xarray.DataArray`` with the site's dims and ``<name>_state``.

        Raises:
            ppl.ModelError: A site that was not summed out.
        """
        from .discrete import probabilities

        with self._context():
            return probabilities(self, name, draws)

    def check(self, functions: Any = None, **options: Any) -> Any:
        """Predictive check: statistics of the data against those of replicated data.

        Args:
            functions: Functions of a data set by name, or names such as ``"max"``.
            **options: ``site``, ``by``, ``prior``, ``draws``, ``seed``: see ``ppl.inference.checks.statistics``.
        """
        from .criticism.checks import statistics

        return statistics(self, functions, **options)

    def to_arviz(self) -> Any:
        """All groups, in the form of the installed ArviZ."""
        from .export import to_arviz

        return to_arviz(self)

    def to_dataframe(self) -> Any:
        """One row per draw: chain, draw, every quantity by its label, every statistic."""
        from .summary import dataframe

        return dataframe(self)

    def report(self, path: Any = "report.html", title: str | None = None) -> Any:
        """Write one self-contained HTML page on this fit.

        It has a verdict in words, the plan, convergence, trace and rank plots of the worst quantities, energy, where
        divergences lie and what to write instead, predictive checks, leave-one-out, timing and versions. It needs
        no network and no script; a part that cannot be computed says why.

        Args:
            path: The file, overwritten if it exists.
            title: Heading; the model's name by default.

        Returns:
            The path.
        """
        from .report import write

        with self._context():
            return write(self, path, title)

    def save(self, path: Any, groups: Iterable[str] | str | None = None) -> None:
        """Write the fit to a Zarr directory.

        Args:
            path: A directory that does not exist.
            groups: Heavy groups to compute and write too, or ``"all"``; by default those that were read.
        """
        from .storage import save

        save(self, path, groups)

    def __repr__(self) -> str:
        """Sites, size and trouble in a few words."""
        chains, draws = self.draws.shape[:2]
        names = list((self.manifest.get("sites") or {}).get("latent") or self.values)
        shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
        return f"<Fit of {shown}: {chains} chains x {draws} draws" + "".join(f"; {n}" for n in self.notes) + ">"

    def _context(self) -> Any:
        return floats.context(self.manifest.get("precision", "float64"))
