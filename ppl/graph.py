"""The graph of a program: sites, plates and parents, read off the traced program by dataflow.

Site i is a parent of site j when the log factor of j is computed from the value of i. The trace keeps the value by
which a site is scored apart from the value that the others see, so that a chain's dependence on its own past shows,
and the flow through a scan is followed to a fixpoint, so that a transition does not seem to read the observation's
scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from . import _jax
from .arguments import abstract
from .missing import with_imputed
from .sites import SiteInfo
from .values import TWIN


@dataclass(frozen=True)
class Graph:
    """Sites and their parents.

    Attributes:
        parents: For each site the sites that it is computed from; a member of a chain that depends on its own past
            is its own parent.
        kinds: Kind of each site.
        plates: ``(name, size, kind)`` of the plates around each site, outermost first.
        families: Distribution of each site.
    """

    parents: dict[str, frozenset[str]]
    kinds: dict[str, str]
    plates: dict[str, tuple[tuple[str, int, str], ...]]
    families: dict[str, str]

    def children(self, name: str) -> frozenset[str]:
        """Sites that are computed from ``name``."""
        return frozenset(child for child, parents in self.parents.items() if name in parents)

    def blanket(self, name: str) -> frozenset[str]:
        """Markov blanket: parents, children and the children's other parents, records left out."""
        children = [c for c in self.children(name) if self.kinds[c] != "record"]
        found = set(self.parents[name]) | set(children)
        for child in children:
            found |= self.parents[child]
        return frozenset(n for n in found - {name} if self.kinds[n] != "record")

    def __str__(self) -> str:
        """Plain text, one line a site, indented by plates."""
        lines: list[str] = []
        open_plates: tuple = ()
        for name, kind in self.kinds.items():
            plates = self.plates[name]
            common = 0
            while common < min(len(plates), len(open_plates)) and plates[common] == open_plates[common]:
                common += 1
            for depth in range(common, len(plates)):
                label, size, what = plates[depth]
                lines.append("  " * depth + f"{what} {label} ({size})")
            open_plates = plates
            lines.append("  " * len(plates) + self._line(name, kind))
        return "\n".join(lines)

    def _line(self, name: str, kind: str) -> str:
        parents = ", ".join(sorted(self.parents[name]))
        if kind == "record":
            return f"{name} = f({parents})"
        if kind == "factor":
            return f"factor {name}({parents})"
        mark = {"observed": " (observed)", "done": " (set)"}.get(kind, "")
        return f"{name} ~ {self.families[name]}({parents}){mark}"

    def dot(self) -> str:
        """Graphviz DOT text; plates are boxes, observed sites are shaded, records are plain text."""
        shapes = {
            "latent": "shape=ellipse",
            "observed": "shape=ellipse, style=filled, fillcolor=lightgrey",
            "done": "shape=doublecircle",
            "record": "shape=plaintext",
            "factor": "shape=box, style=filled, fillcolor=black, fontcolor=white",
        }
        lines = ["digraph model {", "  compound=true;"]
        lines += self._clusters((), shapes)
        for child, parents in self.parents.items():
            lines += [f'  "{parent}" -> "{child}";' for parent in sorted(parents)]
        return "\n".join([*lines, "}"])

    def _clusters(self, path: tuple, shapes: dict[str, str]) -> list[str]:
        pad = "  " * (len(path) + 1)
        lines = [f'{pad}"{n}" [{shapes[self.kinds[n]]}];' for n in self.kinds if self.plates[n] == path]
        deeper = {self.plates[n][: len(path) + 1]: None for n in self.kinds if self.plates[n][: len(path)] == path}
        for inner in deeper:
            if len(inner) == len(path):
                continue
            name, size, kind = inner[-1]
            identity = "_".join(p[0] for p in inner)
            lines.append(f'{pad}subgraph "cluster_{identity}" {{')
            lines.append(f'{pad}  label="{kind} {name} ({size})";')
            lines += self._clusters(inner, shapes)
            lines.append(f"{pad}}}")
        return lines


def graph(program: Any) -> Graph:
    """Graph of a program."""
    learned: dict[str, SiteInfo] = program.learned()
    inputs = [name for name, info in learned.items() if info.kind == "sample"]
    outputs: list[tuple[str, str]] = []

    def score(data: list[Any], own: list[Any], seen: list[Any]) -> list[Any]:
        given = dict(zip(inputs, own, strict=True))
        given |= {name + TWIN: value for name, value in zip(inputs, seen, strict=True)}
        settings = {"given": given, "known": learned, "keep": ("factor", "value")}
        out = program.play(data, **settings)[1].out
        pairs = [((c, n), v) for c in ("factor", "value") for n, v in out.get(c, {}).items()]
        outputs[:] = [label for label, _ in pairs]
        return [jnp.asarray(v) for _, v in pairs]

    values = [jax.ShapeDtypeStruct(learned[n].full_shape, learned[n].dtype) for n in inputs]
    data = [abstract(x) for x in program.arguments.data]
    code, _ = _jax.trace(score, data, values, values)
    count = len(data) + 2 * len(inputs)
    parents: dict[str, frozenset[str]] = {name: frozenset() for name in learned}
    for (channel, name), reads in zip(outputs, _jax.dependence(code, count), strict=True):
        if (channel == "value") == (learned[name].kind == "record"):
            first = len(data) + len(inputs)
            parents[name] = frozenset(inputs[i - first] for i in reads if i >= first)
    parents = with_imputed(program, parents)
    return Graph(
        parents,
        {name: program.role(name) for name in learned},
        {name: info.plates for name, info in learned.items()},
        {name: info.family for name, info in learned.items()},
    )
