"""The shape of the repository: which way imports go, what is forbidden, and how long things may be.

The rules are functions from a parsed module to a list of complaints. Each is applied to the whole tree and,
so that none of them can pass by looking at nothing, to a planted violation.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"ppl": "ppl", "inference": "ppl.inference", "models": "ppl.models", "examples": "examples",
           "benchmarks": "benchmarks", "tests": "tests"}  # fmt: skip
LIBRARY = ("ppl",)
ALL = tuple(FOLDERS.values())
KERNELS = tuple(f"ppl.inference.{name}" for name in ("mcmc", "adapt", "smc", "exact"))
OURS = ("ppl", "inference", "models", "examples", "benchmarks", "tests")
FORBIDDEN = ("jax._src", "tensorflow_probability", "funsor", "pickle", "cloudpickle", "dill")
CALLBACKS = ("pure_callback", "io_callback", "host_callback", "jax.debug")
HOST = "ppl.host"  # the one file that calls functions outside of JAX from compiled programs
NUMPYRO_MODELS = "ppl.inference.interop.numpyro_model"  # reads models that are written in NumPyro


@dataclass(frozen=True)
class Module:
    """A source file under the name by which it is imported."""

    name: str
    source: str
    path: str = "planted.py"
    package: bool = False

    @property
    def tree(self) -> ast.Module:
        return _parse(self.source)


@dataclass(frozen=True)
class Import:
    """One imported name: ``from module import name`` or ``import module``."""

    line: int
    module: str
    name: str | None
    relative: bool

    def target(self, known: frozenset[str]) -> str:
        """The module that is imported: the name itself where that is a module of ours."""
        full = f"{self.module}.{self.name}"
        return full if full in known else self.module


@cache
def _parse(source: str) -> ast.Module:
    return ast.parse(source)


@cache
def modules() -> tuple[Module, ...]:
    found = []
    for folder, prefix in FOLDERS.items():
        for directory, _, files in os.walk(ROOT / folder, followlinks=False):  # the links would repeat files
            for file in sorted(f for f in files if f.endswith(".py")):
                path = Path(directory, file)
                parts = path.relative_to(ROOT / folder).with_suffix("").parts
                package = parts[-1] == "__init__"
                name = ".".join([prefix, *(parts[:-1] if package else parts)])
                found.append(Module(name, path.read_text("utf-8"), str(path.relative_to(ROOT)), package))
    return tuple(found)


@cache
def known_names() -> frozenset[str]:
    names = {module.name for module in modules()}
    return frozenset(names | {name[:i] for name in names for i, letter in enumerate(name) if letter == "."})


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def language(name: str) -> bool:
    return within(name, "ppl") and not within(name, "ppl.inference", "ppl.models")


def imports(module: Module) -> Iterator[Import]:
    package = module.name if module.package else module.name.rpartition(".")[0]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, None, False)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
            for alias in node.names:
                yield Import(node.lineno, base, alias.name, bool(node.level))


def may_import(importer: str, target: str) -> bool:
    """The arrows between the folders."""
    if within(importer, "ppl.exact"):
        return within(target, "ppl.exact")
    if within(importer, *KERNELS):
        protocols = (f"ppl.inference.{name}" for name in ("core", "compiling", "devices", "diagnostics"))
        return within(target, "ppl.exact", *protocols, *KERNELS)
    if within(importer, "ppl.inference"):
        return language(target) or within(target, "ppl.inference")
    if within(importer, "ppl.models"):
        return language(target) or within(target, "ppl.models")
    if within(importer, "examples"):
        parts = target.split(".")
        public = len(parts) <= (3 if within(target, "ppl.inference", "ppl.models") else 1)
        return target == "ppl.distributions" or (parts[0] == "ppl" and public)
    if within(importer, "ppl"):
        return language(target)
    return not within(target, "inference", "models")  # tests and benchmarks


def arrows(module: Module) -> list[str]:
    complaints = []
    for item in imports(module):
        target = item.target(known_names())
        if within(target, *OURS) and not may_import(module.name, target):
            complaints.append(f"{module.path}:{item.line} {module.name} imports {target}")
    return complaints


def import_style(module: Module) -> list[str]:
    """Relative inside inference/ and models/; the language by its absolute name."""
    home = next((home for home in ("ppl.inference", "ppl.models") if within(module.name, home)), None)
    complaints = []
    for item in imports(module):
        target = item.target(known_names())
        if home and item.relative and not within(target, home):
            complaints.append(f"{module.path}:{item.line} relative import leaves {home}: {target}")
        if home and not item.relative and within(target, "ppl.inference", "ppl.models"):
            complaints.append(f"{module.path}:{item.line} absolute import of {target}")
        if within(module.name, "examples") and (item.relative or (item.name or "").startswith("_")):
            complaints.append(f"{module.path}:{item.line} examples use public names only")
    return complaints


def forbidden_imports(module: Module) -> list[str]:
    complaints = []
    for item in imports(module):
        full = f"{item.module}.{item.name}" if item.name else item.module
        bad = within(full, *FORBIDDEN)
        if within(module.name, "ppl"):
            foreign = module.name == NUMPYRO_MODELS
            bad |= within(full, "numpyro") and not within(full, "numpyro.distributions") and not foreign
            bad |= within(full, "jax.extend") and module.name != "ppl._jax"
        if bad:
            complaints.append(f"{module.path}:{item.line} imports {full}")
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute):
            dotted = ast.unparse(node)
            library = within(module.name, *LIBRARY) and module.name != HOST
            callback = library and (node.attr in CALLBACKS or dotted in CALLBACKS)
            if callback or dotted == "jax._src":
                complaints.append(f"{module.path}:{node.lineno} uses {dotted}")
    return complaints


def too_long(module: Module) -> list[str]:
    complaints = []
    limit = 100 if within(module.name, "examples") else 400
    length = len(module.source.splitlines())
    if within(module.name, "ppl", "examples") and length > limit:
        complaints.append(f"{module.path} has {length} lines, more than {limit}")
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and within(module.name, "ppl"):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if ast.get_docstring(node, clean=False) is not None:
                first = node.body[0]
                length -= (first.end_lineno or first.lineno) - first.lineno + 1
            if length > 60:
                complaints.append(f"{module.path}:{node.lineno} {node.name} has {length} lines of code")
    return complaints


def class_bases(tree: ast.Module) -> dict[str, list[str]]:
    return {
        node.name: [ast.unparse(base).split("[")[0].rpartition(".")[2] for base in node.bases]
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }


@cache
def library_classes() -> dict[str, list[str]]:
    return {
        name: bases
        for module in modules()
        if within(module.name, "ppl")
        for name, bases in class_bases(module.tree).items()
    }


def deep_inheritance(module: Module) -> list[str]:
    """A class inherits from a class of ours only if that one inherits from none of ours."""
    if not within(module.name, "ppl"):
        return []
    ours = library_classes() | class_bases(module.tree)
    protocols = {name for name, bases in ours.items() if "Protocol" in bases}

    def depth(name: str) -> int:
        bases = [base for base in ours[name] if base in ours and base not in protocols and base != name]
        return max((1 + depth(base) for base in bases), default=0)

    return [
        f"{module.path} {name} inherits at depth {depth(name)}"
        for name in class_bases(module.tree)
        if depth(name) > 1
    ]


RULES: tuple[Callable[[Module], list[str]], ...] = (
    arrows, import_style, forbidden_imports, too_long, deep_inheritance,
)  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_tree_keeps_the_rule(rule):
    complaints = [complaint for module in modules() for complaint in rule(module)]
    if complaints:
        pytest.fail("\n".join(complaints), pytrace=False)


LONG_FUNCTION = "def f():\n" + "    x = 1\n" * 61
DOCUMENTED = 'def f():\n    """' + "Words.\n" * 40 + '    """\n' + "    x = 1\n" * 50


@pytest.mark.parametrize(
    ("rule", "name", "source"),
    [
        (arrows, "ppl.trace", "import ppl.inference"),
        (arrows, "ppl.trace", "from ppl import inference"),
        (arrows, "ppl.trace", "from .inference.core import Kernel"),
        (arrows, "ppl.trace", "def f():\n    from ppl.models import anything"),
        (arrows, "ppl.exact.kalman", "from ppl.trace import sample"),
        (arrows, "ppl.inference.mcmc.nuts", "from ppl import sample"),
        (arrows, "ppl.inference.adapt.metric", "from ...trace import sample"),
        (arrows, "ppl.inference.mcmc.nuts", "from ..drive import infer"),
        (arrows, "ppl.inference.mcmc.nuts", "from .. import anything"),
        (arrows, "ppl.inference.drive", "from ppl.models import anything"),
        (arrows, "ppl.models.glm", "from ppl.inference import infer"),
        (arrows, "ppl.models.glm", "import examples.demo"),
        (arrows, "examples.demo", "from ppl.trace import Frame"),
        (arrows, "examples.demo", "from ppl.inference.mcmc.nuts import tree"),
        (arrows, "examples.demo", "from tests.oracles import exact"),
        (arrows, "tests.test_x", "from inference.core import Kernel"),
        (import_style, "ppl.inference.drive", "from ppl.inference.core import Kernel"),
        (import_style, "ppl.inference.drive", "from ..trace import sample"),
        (import_style, "ppl.models.glm", "from .. import sample"),
        (import_style, "examples.demo", "from ppl import _cache"),
        (forbidden_imports, "ppl.trace", "import jax._src.core"),
        (forbidden_imports, "ppl.trace", "from jax import _src"),
        (forbidden_imports, "tests.test_x", "import jax\njax._src.core"),
        (forbidden_imports, "ppl.trace", "import pickle"),
        (forbidden_imports, "ppl.trace", "from tensorflow_probability.substrates import jax"),
        (forbidden_imports, "ppl.trace", "import funsor"),
        (forbidden_imports, "ppl.trace", "import numpyro"),
        (forbidden_imports, "ppl.inference.drive", "from numpyro.infer import MCMC"),
        (forbidden_imports, "ppl.graph", "from jax.extend import core"),
        (forbidden_imports, "ppl.inference.drive", "import jax\njax.pure_callback(f, x)"),
        (forbidden_imports, "ppl.inference.drive", "import jax\njax.debug.print('x')"),
        (forbidden_imports, "ppl.external", "import jax\njax.pure_callback(f, x)"),
        (forbidden_imports, "ppl.inference.interop.handover", "from numpyro.infer import MCMC"),
        (too_long, "ppl.trace", "x = 1\n" * 401),
        (too_long, "examples.demo", "x = 1\n" * 101),
        (too_long, "ppl.models.glm", LONG_FUNCTION),
        (deep_inheritance, "ppl.trace", "class A: ...\nclass B(A): ...\nclass C(B): ..."),
    ],
)  # fmt: skip
def test_a_planted_violation_is_found(rule, name, source):
    assert len(rule(Module(name, source + "\n"))) == 1, source


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("ppl.trace", "from ppl.program import Program\nfrom . import graph"),
        ("ppl.trace", "import numpyro.distributions as dist"),
        ("ppl._jax", "from jax.extend import core"),
        ("ppl.host", "import jax\njax.pure_callback(f, x)"),
        ("ppl.inference.interop.numpyro_model", "from numpyro.infer.util import potential_energy"),
        ("ppl.inference.mcmc.nuts", "from ..core import Kernel\nfrom ..adapt import step_size"),
        ("ppl.inference.mcmc.nuts", "from ppl.exact import kalman"),
        ("ppl.inference.drive", "from ppl import compile\nfrom .core import Kernel\nfrom . import mcmc"),
        ("ppl.models.glm", "import ppl\nfrom ppl import dist\nfrom .tables import read"),
        ("examples.demo", "import ppl\nfrom ppl import dist\nfrom ppl.inference import infer, mcmc"),
        ("tests.test_x", "from ppl.inference.mcmc.nuts import tree\nfrom tests.oracles import exact"),
        ("ppl.trace", DOCUMENTED),
        ("ppl.trace", "class A(Protocol): ...\nclass B(A): ...\nclass C(B): ..."),
    ],
)  # fmt: skip
def test_allowed_code_raises_no_complaint(name, source):
    module = Module(name, source + "\n")
    assert [complaint for rule in RULES for complaint in rule(module)] == []


def test_the_walk_sees_every_folder_once():
    paths = [module.path for module in modules()]
    names = {module.name for module in modules()}
    assert len(paths) == len(set(paths)) == len(names)
    assert {"ppl.inference.core", "tests.test_repository"} <= names
    for link, target in (("ppl/inference", "../inference"), ("ppl/models", "../models")):
        assert os.readlink(ROOT / link) == target


HEAVY = (
    "arviz", "xarray", "zarr", "rich", "scipy", "pandas", "matplotlib", "equinox", "optax", "diffrax",
    "narwhals", "polars", "pyarrow", "formulaic", "sklearn", "blackjax", "nutpie", "bridgestan",
)  # fmt: skip
PROBE = """
import json, sys
import jax, numpyro.distributions
before, settings = set(sys.modules), dict(jax.config.values)
{statement}
changed = sorted(k for k, v in jax.config.values.items() if settings.get(k) != v)
print(json.dumps([sorted(set(sys.modules) - before), changed]))
"""


def _probe(statement: str) -> tuple[list[str], list[str]]:
    code = PROBE.format(statement=statement)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    new, changed = json.loads(done.stdout.splitlines()[-1])
    return [name for name in new if within(name, *HEAVY)], changed


def test_importing_is_light():
    """Heavy libraries are imported where they are used, in every module."""
    library = ", ".join(sorted(module.name for module in modules() if within(module.name, "ppl")))
    heavy, changed = _probe(f"import {library}")
    assert heavy == []
    assert [name for name in changed if "cache" not in name] == []


def test_the_import_probe_sees_a_heavy_module_and_a_changed_setting():
    heavy, changed = _probe("import pandas; jax.config.update('jax_enable_x64', True)")
    assert "pandas" in heavy
    assert "jax_enable_x64" in changed
