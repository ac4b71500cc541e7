"""Wrong results that others have shipped, re-injected: each must turn the test red that docs/register.md names.

Under a patch the very test function is called, and has to fail. What was compiled before, or under a patch, is thrown
away. Injections into kernels have files of their own (``test_mutations``, ``test_kernel_mutations``,
``test_composition``).
"""

import importlib
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl import dist, space
from ppl.distributions import tails
from ppl.inference import checkpoint
from ppl.inference.adapt import ladder
from ppl.inference.adapt.step_size import StepSize
from ppl.inference.criticism import moment_match
from ppl.inference.mcmc import tempering_block
from ppl.passes.reparameterize import Moves
from tests.inference import test_runs
from tests.inference.adapt import test_step_size
from tests.inference.criticism import test_leave_one_out
from tests.inference.mcmc import test_tempering
from tests.inference.test_runs import small, whole  # noqa: F401 - fixtures
from tests.oracles import evaluate
from tests.ppl import test_densities, test_reparameterize
from tests.ppl.distributions import test_tails

compiling = importlib.import_module("ppl.compile")  # ``ppl.compile`` is the function


def forget():
    """Throw away what was traced and compiled."""
    compiling._by_key.clear()
    compiling._by_code.clear()
    for cached in (evaluate.built, evaluate.evaluated, getattr(test_reparameterize, "compiled", None)):
        if hasattr(cached, "cache_clear"):
            cached.cache_clear()
    jax.clear_caches()


@pytest.fixture
def fresh():
    forget()
    yield
    forget()


@pytest.mark.standard_promotion
def test_a_determinant_that_is_not_summed_over_a_vector(fresh, monkeypatch):
    """pymc 798: the log-determinant of a vector's transform."""
    right = space.constrain

    def wrong(support, free, info):
        value, logdet = right(support, free, info)
        return value, logdet / max(1, np.size(free))

    monkeypatch.setattr(space, "constrain", wrong)
    with pytest.raises(AssertionError):
        test_densities.test_value_and_gradient_equal_the_hand_written_density("simplexes")


@pytest.mark.standard_promotion
def test_a_prior_that_counts_twice(fresh, monkeypatch):
    """discovery 142, blackjax 750: a wrapper that adds a prior to a density that has one."""
    right = compiling.Compiled.rewritten.fget

    def wrong(self):
        terms = right(self)
        prior = [i for i, (channel, name) in enumerate(terms.names) if channel == "factor" and name in self.slots]
        order = [*range(len(terms.names)), *prior]
        code = compiling._jax.select(terms.code, order)
        return replace(terms, code=code, names=tuple(terms.names[i] for i in order))

    monkeypatch.setattr(compiling.Compiled, "rewritten", property(wrong))
    with pytest.raises(AssertionError):
        test_densities.test_value_and_gradient_equal_the_hand_written_density("eight_schools")


@pytest.mark.standard_promotion
def test_a_determinant_of_the_other_sign(fresh, monkeypatch):
    """numpyro 340: the determinant of a learned change of coordinates."""
    right = Moves.apply

    def wrong(self, *args):
        pieces, logdets, raws = right(self, *args)
        turned = {name: (raw, -half) for name, (raw, half) in raws.items()}
        return pieces, {name: -value for name, value in logdets.items()}, turned

    monkeypatch.setattr(Moves, "apply", wrong)
    name = next(n for n in test_reparameterize.PROGRAMS if n not in test_reparameterize.SLOW)
    with pytest.raises(AssertionError):
        test_reparameterize.test_density_gradient_and_maps_are_those_of_a_change_of_variables(name)


def test_a_warm_up_that_returns_the_last_step_size(monkeypatch):
    """blackjax 116: the step that is frozen is not the averaged one."""
    monkeypatch.setattr(StepSize, "final", lambda self, memory, kernel: kernel)
    with pytest.raises(AssertionError):
        test_step_size.test_matches_the_published_recursion()


def test_tempering_with_the_sign_turned(monkeypatch):
    """blackjax 914: a sign in the tempering, which symmetric targets and another wrong sign in the tests had hidden."""
    right = tempering_block.swapped
    monkeypatch.setattr(tempering_block, "swapped", lambda key, z, v, b, i: right(key, z, -v, b, i))
    with pytest.raises(AssertionError):
        test_tempering.test_swaps_keep_the_joint_law()


def test_an_evidence_that_forgets_a_normalising_mean(monkeypatch):
    """pymc 2987: evidences that were wrong by the weights' own normalisation."""
    monkeypatch.setattr(ladder, "log_ratios", lambda means, centres: centres + np.log(means[..., 0]))
    with pytest.raises(AssertionError):
        test_tempering.test_the_bridge_is_exact_for_gaussians()


@pytest.mark.parametrize("whole", ["pooled"], indirect=True)
def test_a_checkpoint_that_loses_digits(whole, tmp_path, small, monkeypatch):  # noqa: F811
    """dynesty 439, sbi 641: what is resumed is not what was interrupted."""
    right = checkpoint.unpack

    def wrong(skeleton, arrays, *rest):
        shorter = [a.astype(np.float32).astype(a.dtype) if a.dtype == np.float64 and a.ndim > 1 else a for a in arrays]
        return right(skeleton, shorter, *rest)

    monkeypatch.setattr(checkpoint, "unpack", wrong)
    with pytest.raises(AssertionError):
        test_runs.test_a_time_budget_leaves_a_resumable_directory(whole, tmp_path, small)


@pytest.mark.standard_promotion
def test_tails_by_subtraction(monkeypatch):
    """numpyro 2193, gluonts 1884: log(1 - cdf), which is -inf where the tail is thin."""
    wrong = lambda d, x: jnp.log1p(-jnp.asarray(d.cdf(x)))  # noqa: E731
    monkeypatch.setattr(tails, "log_sf", wrong)
    monkeypatch.setattr(dist, "log_sf", wrong)
    with pytest.raises(AssertionError):
        test_tails.test_far_tails()


def test_moments_matched_without_the_stretch_of_the_map(monkeypatch):
    """arviz-stats 212: weights of transformed draws without the transform's determinant."""
    for owner in vars(moment_match).values():
        if isinstance(owner, type) and "log_det" in vars(owner):
            monkeypatch.setattr(owner, "log_det", property(lambda self: 0.0))
    with pytest.raises(AssertionError):
        test_leave_one_out.test_the_split_weights_have_the_stretch_of_the_map()
