"""The score identities accept the right density and refuse plausible misreadings of it."""

import json

import jax
import numpy as np
import pytest

import ppl
from benchmarks.posteriordb import check, pack
from benchmarks.posteriordb.programs import PROGRAMS
from ppl import dist

pytestmark = pytest.mark.standard_promotion


@ppl.model
def gamma_rate(shape):
    """A conjugate model whose posterior is known: rate ~ Gamma(2, 1), y ~ Exponential(rate)."""
    rate = ppl.sample("rate", dist.Gamma(shape, 1.0))

    @ppl.plate("row", 6)
    def row(_):
        ppl.sample("y", dist.Exponential(rate))


Y = np.array([0.3, 0.1, 0.7, 0.2, 0.5, 0.9])
# 8000 exact posterior draws in the layout of a reference file
REFERENCE = {"rate": np.random.default_rng(5).gamma(2.0 + 6, 1 / (1.0 + Y.sum()), size=(8, 1000))}


@pytest.mark.parametrize(("shape", "right"), [(2.0, True), (1.0, False), (2.5, False)])
def test_wrong_priors_are_refused(shape, right):
    # a right density fails with probability 1e-4 (two |z| below 4 and 4.5); shape 1 is a forgotten Jacobian
    row = check.check_density("gamma", gamma_rate(shape).condition(y=Y), {}, REFERENCE)
    assert row["pass"] is right


def test_identities_notice_a_scale_that_is_ten_percent_off():
    u = np.random.default_rng(1).normal(size=(6000, 3)) * [1.0, 30.0, 0.01]
    precision = 1 / np.array([1.0, 30.0, 0.01]) ** 2
    first, second, _ = check.score_identities(u, -u * precision)
    assert first < 4 and second < 4.5
    assert check.score_identities(u, -u * precision * [1.0, 1.0, 1.2])[1] > 6
    assert check.score_identities(u, -(u - [0.0, 3.0, 0.0]) * precision)[0] > 6


def test_pack_reads_names_and_shapes(tmp_path):
    folder = tmp_path / "toy-model"
    folder.mkdir()
    (folder / "data.json").write_text(json.dumps({"N": 2}))
    np.savez(
        folder / "reference.npz", **{"b[10]": np.full((2, 3), 10.0), "b[9]": np.zeros((2, 3)), "mu": np.ones((2, 3))}
    )
    assert pack.posteriors(tmp_path) == ["toy-model"] and pack.load_data(tmp_path, "toy-model") == {"N": 2}
    together = pack.assemble(pack.load_reference(tmp_path, "toy-model"))
    assert together["b"].shape == (2, 3, 2) and together["b"][0, 0].tolist() == [0.0, 10.0]
    assert together["mu"].shape == (2, 3)
    assert list(pack.scalars("m", np.zeros((1, 2, 2, 2)))) == ["m[1,1]", "m[1,2]", "m[2,1]", "m[2,2]"]


def schools():
    data = {"y": [28, 8, -3, 7], "sigma": [15, 10, 16, 11]}
    program = PROGRAMS["eight_schools-eight_schools_noncentered"](data)
    rng = np.random.default_rng(0)
    draws = {"mu": rng.normal(size=(2, 5)), "tau": rng.gamma(2.0, size=(2, 5))}
    draws |= pack.scalars("theta", rng.normal(size=(2, 5, 4)))
    return "eight_schools-eight_schools_noncentered", program, data, draws


def process():
    data = {"x": list(range(4)), "k": [1, 2, 0, 3]}
    rng = np.random.default_rng(0)
    draws = {"alpha": rng.gamma(2.0, size=(2, 5)), "rho": 1 + rng.gamma(2.0, size=(2, 5))}
    draws |= pack.scalars("f", rng.normal(size=(2, 5, 4)))
    return "gp_pois_regr-gp_pois_regr", PROGRAMS["gp_pois_regr-gp_pois_regr"](data), data, draws


def garch():
    data = {"y": [0.1, -0.2, 0.4], "sigma1": 0.5}
    weights = np.random.default_rng(0).dirichlet(np.ones(3), size=(2, 5))
    draws = {"mu": np.zeros((2, 5)), "alpha0": np.ones((2, 5)), "alpha1": weights[..., 0], "beta1": weights[..., 1]}
    return "garch-garch11", PROGRAMS["garch-garch11"](data), data, draws


@pytest.mark.parametrize("case", [schools, process, garch])
def test_latents_are_recovered_from_stored_quantities(case):
    name, program, data, draws = case()
    density = ppl.compile(program)
    z = check.unconstrained(name, density, data, draws)
    back = jax.vmap(density.generated)(z)
    for key, value in pack.assemble(draws).items():
        np.testing.assert_allclose(np.asarray(back[key]), value.reshape(10, *value.shape[2:]), rtol=1e-6)
