"""The table of what collapse gains."""

import jax

from benchmarks import collapse


def test_a_row_compares_densities_and_says_what_was_done():
    with jax.enable_x64(True):
        row = collapse.row("rates", collapse.programs(0, 3_000)["rates"], clock=lambda density: float(density.work))
    assert max(row["value"], row["gradient"]) < collapse.CLOSE
    assert row["ratio"] > 100
    assert row["notes"] == ["collapsed 'y': sums over 3000 observations; 106 times less arithmetic"]


def test_the_clock_measures_a_compiled_loop():
    with jax.enable_x64(True):
        density = collapse.ppl.compile(collapse.programs(0, 3_000)["regression"])
        assert 1e-9 < collapse.seconds(density, repeats=1) < 1.0
