"""The text of a formula's model: written, compiled once per text, and shown with its priors.

Data, priors and labels are arguments, so that formulas that differ only in those share one text and what was
compiled for it.
"""

from __future__ import annotations

import itertools
import keyword
import linecache
import re
from typing import Any

import numpy as np

from .errors import ModelError, at, user_line
from .formula_design import INTERCEPT, Block, Design
from .formula_families import LINKS, Family
from .program import Model

HEADER = "import jax\nimport jax.numpy as jnp\n\nimport ppl\nfrom ppl import dist\n\n\n"
_made: dict[str, tuple[Any, dict]] = {}
_numbers = itertools.count(1)


class FormulaModel(Model):
    """The model of a formula; ``source`` is its text.

    Attributes:
        source: Text of the model, to be copied and edited.
        design: What was learned from the data.
        family: Name of the family.
        link: Name of the link.
        prior: Priors by site.
    """

    def __init__(self, source: str, design: Design, family: str, link: str, prior: dict[str, Any]) -> None:
        """Compile a text, or take what was compiled for it."""
        if source not in _made:
            name = f"<formula {next(_numbers)}>"
            linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
            namespace: dict[str, Any] = {"__name__": "formula"}
            exec(compile(source, name, "exec"), namespace)
            made = next(value for value in namespace.values() if isinstance(value, Model))
            _made[source] = (made.function, made._cache)
        function, cache = _made[source]
        super().__init__(function)
        self._cache = cache
        self.source, self.design, self.family, self.link, self.prior = source, design, family, link, prior


def response_name(design: Design) -> str:
    """Name of the response's site."""
    return design.parsed.response.strip("`")


def write(design: Design, family: Family, link: str) -> str:
    """Write the model.

    Raises:
        ModelError: If two quantities would have one name.
    """
    response = response_name(design)
    plate = next(n for n in ("observation", "observations", "observation_") if n not in design.levels)
    _check_names(design, family, response, plate)
    text = design.parsed.text.replace("\\", "\\\\").replace('"""', "'''")
    lines = [f'"""{text} ({family.name}, {link} link)."""', *_common(design)]
    lines += ['eta = eta + data["offset"]'] if design.offset else []
    for i, block in enumerate(design.blocks):
        lines += ["", *_block(block, f"_{i + 1}" if len(design.blocks) > 1 else "")]
    lines += ["", *(f'{name} = ppl.sample("{name}", prior["{name}"])' for name in family.auxiliary)]
    binomial = family.name == "binomial"
    arrays, slices = ('eta, data["trials"]', "eta, trials") if binomial else ("eta", "eta")
    density = family.logits if link == "logit" else family.density
    lines += [
        *([""] if family.auxiliary else []),
        f'@ppl.plate("{plate}", {arrays})',
        f"def {plate}({slices}):",
        f"    mu = {LINKS[link].inverse}",
        f"    if mean:  # {'the chance of one trial' if binomial else 'the expected response'}, for predictions",
        f'        ppl.record("{response}_mean", mu)',
        f'    ppl.sample("{response}", {density})',
    ]
    body = "\n".join(f"    {line}".rstrip() for line in lines)
    return f"{HEADER}@ppl.model\ndef {_identifier(response)}_model(data, prior, labels, mean=False):\n{body}\n"


def _identifier(name: str) -> str:
    found = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "response"
    return f"the_{found}" if keyword.iskeyword(found) or found[0].isdigit() else found


def _common(design: Design) -> list[str]:
    """Intercept and coefficients; the columns are centred, so that the intercept is where the data are."""
    draw = 'ppl.sample("b", prior["b"], dims={"coefficient": labels["coefficient"]})'
    if not design.coefficients:
        first = ['intercept = ppl.sample("Intercept", prior["Intercept"])'] if design.intercept else []
        eta = 'jnp.zeros(len(data["X"]))'
        return [*first, f"eta = {'intercept + ' if design.intercept else ''}{eta}"]
    if not design.intercept:
        return [f"b = {draw}", 'eta = data["X"] @ b']
    return [
        'level = ppl.sample("level", prior["Intercept"])  # the intercept at the means of all columns',
        f"b = {draw}",
        'ppl.record("Intercept", level - data["means"] @ b)',
        'eta = level + (data["X"] - data["means"]) @ b',
    ]


def _block(block: Block, mark: str) -> list[str]:
    """Effects of one group term, non-centred: a scale, for several a correlation, and standard normals."""
    name, plate, many = block.name, block.plate, len(block.effects) > 1
    dim = f"{name}_effect"
    variable = _identifier(plate).lower() + mark
    lines = [f"# {block.term.text}" + (f" by {plate}" if "/" in block.term.text else "")]
    if not many:
        return [
            *lines,
            f'sd{mark} = ppl.sample("{name}_sd", prior["{name}_sd"])',
            "",
            f'@ppl.plate("{plate}", coords=labels["{plate}"])',
            f"def {variable}():",
            f'    return ppl.record("{name}_offset", sd{mark} * ppl.sample("{name}_z", dist.Normal(0.0, 1.0)))',
            "",
            f'eta = eta + data["Z"]["{name}"][:, 0] * {variable}[data["codes"]["{plate}"]]',
        ]
    effects = len(block.effects)
    lines.append(f'sd{mark} = ppl.sample("{name}_sd", prior["{name}_sd"], dims={{"{dim}": labels["{dim}"]}})')
    factor = f"sd{mark} * z"
    if block.term.correlated:
        lkj = f'dist.LKJCholesky({effects}, prior["{name}_correlation"])'
        pair = f'{{"{dim}": labels["{dim}"], "{dim}_": labels["{dim}"]}}'
        lines += [
            f'L{mark} = ppl.sample("{name}_L", {lkj}, dims={pair})',
            f"correlation{mark} = (L{mark} @ L{mark}.T)[jnp.tril_indices({effects}, -1)]",
            f'ppl.record("{name}_correlation", correlation{mark}, dims={{"{name}_pair": labels["{name}_pair"]}})',
        ]
        factor = f"sd{mark} * (L{mark} @ z)"
    return [
        *lines,
        "",
        f'@ppl.plate("{plate}", coords=labels["{plate}"])',
        f"def {variable}():",
        f'    z = ppl.sample("{name}_z", dist.Normal(jnp.zeros({effects}), 1.0), dims="{dim}")',
        f'    return ppl.record("{name}_offset", {factor}, dims="{dim}")',
        "",
        f'eta = eta + jnp.sum(data["Z"]["{name}"] * {variable}[data["codes"]["{plate}"]], axis=1)',
    ]


def _check_names(design: Design, family: Family, response: str, plate: str) -> None:
    taken = [INTERCEPT, "level", "b", "coefficient", plate, *family.auxiliary]
    for block in design.blocks:
        taken += [f"{block.name}_{part}" for part in ("sd", "L", "correlation", "z", "offset", "effect", "pair")]
    for name in [response, f"{response}_mean", *{block.plate: None for block in design.blocks}]:
        if name in taken or '"' in name or "\\" in name:
            raise ModelError(
                f"the name {name!r} of the formula is also that of a parameter, or holds quotes:\n{at(user_line())}\n"
                "  Rename the column."
            )
        taken.append(name)


# ---------------------------------------------------------------------------------------------- shown


def listing(program: Any) -> str:
    """The text of a program's model, its priors, and the call that binds them; see ``ppl.formula``."""
    model = program.model
    if not isinstance(model, FormulaModel):
        raise TypeError(f"{program!r} was not made by ppl.formula")
    priors = "\n".join(f"    {name!r}: {_shown(d)}," for name, d in model.prior.items())
    function = model.function.__name__
    return (
        f"{model.source}\n\nprior = {{\n{priors}\n}}\n"
        f"# program.inputs has the data and the labels:\n"
        f'# {function}(program.inputs["data"], prior, program.inputs["labels"]).condition({{...}})\n'
    )


def _shown(d: Any) -> str:
    """A prior as the text that makes it."""
    if isinstance(d, float):
        return repr(d)
    kind = type(d).__name__
    if kind == "Improper":
        positive = "ositive" in type(d.support).__name__ or "GreaterThan" in type(d.support).__name__
        return f"dist.{'FlatPositive' if positive else 'Flat'}({d.shape() or ''})"
    if kind == "ExpandedDistribution":
        return f"{_shown(d.base_dist)}.expand({list(d.batch_shape)})"
    names = ("scale",) if kind == "HalfNormal" else tuple(d.arg_constraints)
    return f"dist.{kind}({', '.join(f'{name}={_number(getattr(d, name))}' for name in names)})"


def _number(x: Any) -> str:
    x = np.asarray(x)
    return repr(x.item()) if x.ndim == 0 else f"jnp.array({x.tolist()!r})"
