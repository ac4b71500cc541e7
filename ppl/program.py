"""Models and programs: a generative model as a Python function, called on data, conditioned, simulated, scored.

A ``Program`` is a joint density p(x_1, ..., x_n) = prod_i p(x_i | earlier sites), of which ``condition`` fixes a
value and keeps its factor, while ``do`` fixes it and drops the factor (Pearl, 2009).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import _jax, arguments, bounds, missing
from .axes import padded_axes
from .errors import explained
from .host import surfacing
from .sites import Learned, Site, SiteInfo, in_order
from .tidy import Tidy
from .trace import Frame, entered

Array = Any
_CACHE_SIZE = 256  # entries per model; functions that read mutable objects make a new one each time


class Model:
    """A generative model; calling it on data gives a ``Program``.

    Attributes:
        function: The user's function.
    """

    def __init__(self, function: Callable) -> None:
        """Wrap a function that calls ``ppl.sample``."""
        self.function = function
        self.__name__ = getattr(function, "__name__", "model")
        self.__qualname__ = getattr(function, "__qualname__", self.__name__)
        self.__doc__ = function.__doc__
        self.__module__ = getattr(function, "__module__", "")
        self.__wrapped__ = function
        self._cache: dict[Hashable, Any] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Program:
        """Bind the model to its data and settings; nothing runs yet."""
        args, kwargs, names = arguments.bound(self.function, args, kwargs)
        return Program(self, arguments.split_arguments(args, kwargs, self.__name__), names)

    def __repr__(self) -> str:
        """Name of the model."""
        return f"Model({self.__name__})"


def model(function: Callable) -> Model:
    """Make a model of a Python function that calls ``ppl.sample``.

    Arrays and floats that it is called with are data; ints, bools, strings, None and callables are settings.

    Example:
        >>> import numpy as np, ppl
        >>> from ppl import dist
        >>> @ppl.model
        ... def normal(n):
        ...     mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
        ...     @ppl.plate("row", n)
        ...     def y():
        ...         return ppl.sample("y", dist.Normal(mu, 1.0))
        >>> round(float(normal(2).log_prob({"mu": 0.0, "y": np.zeros(2)})), 4)
        -2.7568
    """
    return Model(function)


@dataclass(frozen=True, eq=False)
class Program:
    """A model bound to data, with some of its sites fixed; immutable.

    Attributes:
        model: The model.
        arguments: The call, divided into data and settings.
        inputs: The call's arguments by parameter name.
        fixed: Values of fixed sites.
        roles: ``"observed"`` or ``"done"`` for each of them.
        released: Sites that a called sub-program conditions but this program does not.
        horizon: Steps by which chains are longer than the model says, by name.
    """

    model: Model
    arguments: arguments.Arguments
    inputs: dict[str, Any]
    fixed: dict[str, Any] = None  # type: ignore[assignment]
    roles: dict[str, str] = None  # type: ignore[assignment]
    released: frozenset[str] = frozenset()
    horizon: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        """Fill the empty defaults."""
        object.__setattr__(self, "fixed", dict(self.fixed or {}))
        object.__setattr__(self, "roles", dict(self.roles or {}))

    # ------------------------------------------------------------------------------------------ running

    @property
    def conditions(self) -> dict[str, Any]:
        """Values of the sites that ``condition`` has fixed, NaN in gaps; ``observed`` has called programs' too."""
        found = {n: missing.shown(self, n, self.fixed[n]) for n, role in self.roles.items() if role == "observed"}
        return self.tidy.unpacked(found)

    def observed(self) -> dict[str, Any]:
        """Values of all observed sites, also of those that a called sub-program conditions."""
        from .observations import observed

        return observed(self)

    @property
    def args(self) -> tuple:
        """Positional arguments of the call."""
        return self.arguments.rebuild(self.arguments.data)[0]

    @property
    def kwargs(self) -> dict:
        """Keyword arguments of the call."""
        return self.arguments.rebuild(self.arguments.data)[1]

    def execute(self, data: Any = None) -> Any:
        """Call the model's function in the ambient frame, with other arrays in place of the data if given."""
        args, kwargs = self.arguments.rebuild(
            [jnp.asarray(x) for x in (self.arguments.data if data is None else data)]
        )
        with explained(f"model {self.model.__name__!r}"):
            return self.model.function(*args, **kwargs)

    def play(self, data: Any, **settings: Any) -> tuple[Any, Frame]:
        """Run once in a fresh frame with the given settings (see ``Frame``)."""
        defaults = {"given": {}, "free": {}, "roles": self.roles, "known": {}, "key": None, "released": self.released}
        settings = {**defaults, "horizon": dict(self.horizon), **settings}
        given, places = ("given", "free", "roles"), settings["given"]
        settings |= dict(zip(given, missing.expand(*(settings[name] for name in given)), strict=True))
        frame = Frame(keep=frozenset(settings.pop("keep", ())), **settings)
        with entered(frame):
            result = self.execute(data)
        missing.collect(frame.out, places)
        return result, frame

    def key(self) -> Hashable:
        """Identity of everything but the values of the data; unique where the program reads mutable objects."""
        reads: tuple[Hashable, ...]
        try:
            reads = (arguments.fingerprint(self.model.function), self.arguments.key())
        except arguments.Unstable:
            reads = (object(),)
        x64 = bool(jax.config.jax_enable_x64)
        return (*reads, arguments.shape_key(self.arguments.data), x64, self.released, self.horizon)

    def learned(self) -> dict[str, SiteInfo]:
        """The sites, by one abstract run (cached by the program's identity)."""
        return self._learn().sites

    def _learn(self) -> Learned:
        found = self.__dict__.get("_learned")
        if found is None:
            identity = self.key()
            cache = self.model._cache
            found = cache.get(("learned", identity))
            if found is None:
                frames: list[Frame] = []

                def run(data: list[Any]) -> None:
                    frames[:] = [self.play(data, roles={})[1]]

                code, _ = _jax.trace(run, [arguments.abstract(x) for x in self.arguments.data])
                top = frames[0]
                read = bounds.lookups(code)
                found = Learned(top.sites, top.coords, padded_axes(top.tables), top.subsampled, read)
                cache[("learned", identity)] = found
            looked_up = found.lookups
            self.arguments.once(lambda: bounds.check(looked_up, self.arguments.data, self._place))
            found = missing.extended(found, self.fixed)
            object.__setattr__(self, "_learned", found)
        return found

    def _place(self, index: int) -> str:
        """An array of the call, in words."""
        array = self.arguments.data[index]
        for name, value in self.inputs.items():
            leaves = [x for x in jax.tree_util.tree_leaves(value) if hasattr(x, "shape")]
            if any(x.shape == array.shape and np.array_equal(x, array) for x in leaves):
                return f"argument {name!r} of model {self.model.__name__!r}"
        return f"an argument of model {self.model.__name__!r}"

    # ------------------------------------------------------------------------------------------ description

    @property
    def sites(self) -> dict[str, Site]:
        """All sites, in the order in which the model runs them."""
        return {name: self._site(info) for name, info in self.tidy.sites.items()}

    @cached_property
    def tidy(self) -> Tidy:
        """Sites and values as users see them where the model has ragged plates, and the way to the packed ones."""
        return Tidy(self)

    def role(self, name: str) -> str:
        """Kind of a site: latent, observed, done, record or factor."""
        info = self.learned()[name]
        if info.kind != "sample":
            return info.kind
        return self.roles.get(name) or info.role or "latent"

    def _site(self, info: SiteInfo) -> Site:
        own = info.dims or tuple(f"{info.name}_dim_{i}" for i in range(len(info.shape)))
        plates = tuple(name for name, _, _ in info.plates)
        return Site(
            info.name,
            self.role(info.name),
            info.full_shape,
            plates + own,
            np.dtype(info.dtype),
            plates,
            info.source,
            info.discrete,
        )

    @property
    def coords(self) -> dict[str, np.ndarray]:
        """Labels of the plates that have them."""
        if "_labels" not in self.__dict__:
            object.__setattr__(self, "_labels", missing.labels(self))
        return {**self._learn().coords, **self.tidy.labels, **self.__dict__["_labels"]}

    def latent(self) -> tuple[str, ...]:
        """Names of the latent sites."""
        return tuple(name for name in self.learned() if self.role(name) == "latent")

    def graph(self) -> Any:
        """Sites, plates and parents, read off the traced program by dataflow."""
        from .graph import graph

        return graph(self)

    def __repr__(self) -> str:
        """Model, and what is fixed."""
        fixed = "".join(f", {role} {name}" for name, role in self.roles.items() if "\0" not in name)
        return f"Program({self.model.__name__}{fixed})"

    # ------------------------------------------------------------------------------------------ fixing

    def condition(
        self, values: Mapping[str, Any] | None = None, /, *, missing: Any = "error", **named: Any
    ) -> Program:
        """Observe sites: fix their values and keep their factors.

        Args:
            values: Values by site name; for names such as ``"school/y"``.
            missing: What becomes of gaps (NaN, None, NA, masked entries): ``"error"``; ``"marginalize"``, which leaves
                these elements out of the density exactly; ``"impute"``, which makes them the latent site
                ``<site>_missing``. One policy for all sites of the call, or a mapping from sites to policies.
            **named: The same as keywords.

        Returns:
            A new program.

        Raises:
            ModelError: An unknown name, a shape that is not exactly the site's, a gap without a policy or with one
                that would not be exact, or a value outside of the support.

        Example:
            >>> import ppl
            >>> from ppl import dist
            >>> @ppl.model
            ... def f():
            ...     ppl.sample("y", dist.Normal(0.0, 1.0))
            >>> f().condition(y=1.0).sites["y"].kind
            'observed'
            >>> float(f().condition(y=float("nan"), missing="marginalize").log_prob({}))
            0.0
        """
        from .fixing import fix

        return fix(self, {**(values or {}), **named}, "observed", missing)

    def do(self, values: Mapping[str, Any] | None = None, /, **named: Any) -> Program:
        """Intervene on sites: fix their values and drop their factors.

        Args:
            values: Values by site name.
            **named: The same as keywords.

        Returns:
            A new program, which shares the randomness of untouched sites with this one.

        Raises:
            ModelError: As for ``condition``.
        """
        from .fixing import fix

        return fix(self, {**(values or {}), **named}, "done")

    def release(self) -> Program:
        """The same program with nothing observed, also in called sub-programs; what ``do`` has fixed stays."""
        from .observations import release

        return release(self)

    # ------------------------------------------------------------------------------------------ scoring, simulation

    def _compiled(self, what: str, build: Callable[[], Callable]) -> Callable:
        """A jitted function of this program, cached by the program's identity and the names it is called with."""
        identity = ("run", what, self.key(), tuple(self.roles.items()), arguments.shape_key(tuple(self.fixed.values())))
        cache = self.model._cache
        if identity not in cache:
            if len(cache) > _CACHE_SIZE:
                cache.clear()
            cache[identity] = surfacing(jax.jit(build()))
        return cache[identity]

    def factors(self, values: Mapping[str, Any]) -> dict[str, Array]:
        """Log factors of all sites at given values, in constrained space, without any Jacobian.

        Args:
            values: Values of the sites that are not fixed.

        Returns:
            For each site its log factor, of the shape of its plates and the distribution's batch.
        """
        from .running import factors

        return factors(self, values)

    def log_prob(self, values: Mapping[str, Any]) -> Array:
        """Joint log density at given values: the sum of ``factors``."""
        factors = self.factors(values)
        return sum((jnp.sum(f) for f in factors.values()), jnp.zeros(()))

    def run(self, values: Mapping[str, Any] | None = None, seed: Any = 0) -> Any:
        """Return value of the model's function, at given values and with the other sites simulated."""
        from .running import simulation

        return simulation(self, "result", values or {}, seed)

    def simulate(self, key: Array, values: Mapping[str, Any]) -> dict[str, Array]:
        """Simulate, with some sites clamped; a pure function for use under jit and vmap.

        Args:
            key: A JAX random key.
            values: Values of clamped sites, full shapes; names of sites only.

        Returns:
            Values of all sites and records.

        Raises:
            ImproperPrior: A site that is to be drawn has an improper prior.
        """
        from .running import simulate

        return simulate(self, key, values)

    def sample(self, seed: Any = 0) -> dict[str, Array]:
        """Simulate the program: one draw of every site and record.

        Randomness is keyed by site name, so programs that differ by ``do`` or ``condition`` share the noise of
        untouched sites.

        Args:
            seed: An int or a JAX random key.

        Returns:
            Values by name, full shapes.

        Raises:
            ModelError: A ``factor`` would be ignored, so that another model would be simulated.
            ImproperPrior: A prior cannot be sampled.
        """
        from .check import check_simulable
        from .running import simulation

        check_simulable(self)
        return in_order(self.learned(), simulation(self, "values", {}, seed))
