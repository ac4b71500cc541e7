"""The data that ship: published figures recomputed from them."""

import numpy as np
import pytest

from ppl.models import datasets


def test_sizes():
    sizes = {name: len(next(iter(datasets.load(name).values()))) for name in datasets.names()}
    assert sizes == {
        "challenger": 23,
        "eight_schools": 8,
        "lung": 228,
        "nile": 100,
        "penguins": 342,
        "sleepstudy": 180,
        "snowshoe_hare": 68,
        "stackloss": 21,
    }


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="no data set 'lungs'; there are challenger, eight_schools"):
        datasets.load("lungs")


def test_text_columns_stay_text():
    assert sorted(set(datasets.load("penguins")["species"])) == ["Adelie", "Chinstrap", "Gentoo"]


def test_challenger_reproduces_the_published_fit():
    # Dalal, Fowlkes and Hoadley (1989): logit p = 15.043 - 0.2322 t
    data = datasets.load("challenger")
    X, y = np.stack([np.ones(23), data["temperature"]], axis=1), data["damaged"]
    b = np.zeros(2)
    for _ in range(30):
        p = 1 / (1 + np.exp(-X @ b))
        b += np.linalg.solve(X.T @ (X * (p * (1 - p))[:, None]), X.T @ (y - p))
    np.testing.assert_allclose(b, [15.043, -0.2322], atol=5e-4)


def test_stackloss_reproduces_the_published_fit():
    # Brownlee (1965): -39.92 + 0.7156 air + 1.2953 water - 0.1521 acid, residual sd 3.243
    data = datasets.load("stackloss")
    names = ("air_flow", "water_temperature", "acid_concentration")
    X = np.column_stack([np.ones(21), *(data[name] for name in names)])
    b, rss = np.linalg.lstsq(X, data["loss"], rcond=None)[:2]
    np.testing.assert_allclose(b, [-39.92, 0.7156, 1.2953, -0.1521], atol=5e-3)
    np.testing.assert_allclose(np.sqrt(rss[0] / 17), 3.243, atol=1e-3)


def test_sleepstudy_reproduces_the_published_fixed_effects():
    # balanced, so the fixed effects 251.405 + 10.467 days are those of least squares
    data = datasets.load("sleepstudy")
    slope, intercept = np.polyfit(data["days"], data["reaction"], 1)
    np.testing.assert_allclose([intercept, slope], [251.405, 10.467], atol=1e-3)
    assert len(set(data["subject"])) == 18


def test_lung_has_the_published_counts():
    # Loprinzi et al. (1994): 165 deaths; 138 men, 90 women
    data = datasets.load("lung")
    assert data["status"].sum() == 165 and (data["sex"] == 1).sum() == 138


def test_nile_has_the_published_mean():
    assert datasets.load("nile")["volume"].mean() == 919.35
