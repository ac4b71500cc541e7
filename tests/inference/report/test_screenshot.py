"""The page in a browser: it draws what it should, asks nothing of the network and logs no error."""

import re
import shutil
import subprocess

import numpy as np
import pytest

BROWSER = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)

pytestmark = [
    pytest.mark.standard_promotion,
    pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on the path"),
]
HEIGHT = 9000


def shoot(page, folder, width=1100, *options):
    """A picture of a page, as (rows, columns, channels), and what the browser's console had to say."""
    from matplotlib.image import imread

    picture = folder / "page.png"
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-background-networking",
        "--disable-component-update", "--no-first-run", f"--user-data-dir={folder / 'profile'}",
        "--enable-logging=stderr", f"--window-size={width},{HEIGHT}", f"--screenshot={picture}", *options,
        page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    if not picture.exists():
        pytest.skip(f"the browser made no picture: {done.stderr[-300:]}")
    return np.asarray(imread(picture))[..., :3], re.findall(r"CONSOLE.*", done.stderr)


def inked(picture):
    """Rows with anything but the background."""
    return (np.abs(picture - picture[-1, -1]) > 0.05).any(axis=(1, 2))


def test_the_page_of_a_funnel(funnel, tmp_path):
    page = funnel.report(tmp_path / "report.html")
    picture, console = shoot(page, tmp_path)
    assert console == []
    assert picture.shape[:2] == (HEIGHT, 1100)
    rows = inked(picture)
    last = int(np.flatnonzero(rows)[-1])
    assert 4500 < last < 7500  # nothing below, and no part that fell together
    empty = np.diff(np.flatnonzero(rows)).max()
    assert empty < 120  # no hole where a drawing should be
    assert rows[:last].mean() > 0.5
    assert np.unique((picture[:last:7, ::7] * 255).astype(int).reshape(-1, 3), axis=0).shape[0] > 50


@pytest.mark.slow
def test_what_the_page_must_not_do_is_blocked_and_seen(funnel, tmp_path):
    page = funnel.report(tmp_path / "report.html")
    planted = '<img src="https://example.invalid/x.png"/><script>console.log("ran")</script></body>'
    page.write_text(page.read_text("utf-8").replace("</body>", planted), "utf-8")
    _, console = shoot(page, tmp_path)
    assert len(console) == 2
    assert all("Content Security Policy" in line for line in console)


@pytest.mark.slow
def test_narrow_and_dark(funnel, tmp_path):
    page = funnel.report(tmp_path / "report.html")
    narrow, console = shoot(page, tmp_path, 500)
    assert console == []
    assert inked(narrow)[:5000].mean() > 0.4
    dark, console = shoot(page, tmp_path, 1100, "--force-dark-mode", "--enable-features=WebContentsForceDark")
    assert console == []
    assert dark[-1, -1].mean() < 0.4 < dark.max()
