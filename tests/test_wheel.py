"""The built distributions contain the three folders as one package and run away from the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"ppl": "ppl", "inference": "ppl/inference", "models": "ppl/models"}
DATA = (".csv", ".json", ".npz")

pytestmark = pytest.mark.slow


def expected_files() -> set[str]:
    found = set()
    for folder, target in FOLDERS.items():
        for directory, names, files in os.walk(ROOT / folder, followlinks=False):
            names[:] = [name for name in names if name != "__pycache__"]
            for file in files:
                path = Path(directory, file).relative_to(ROOT / folder)
                if file.endswith(".py") or (folder == "models" and file.endswith(DATA)):
                    found.add(f"{target}/{path.as_posix()}")
    return found


def run(*command: str | Path, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """The source archive of a copy of this checkout, and the wheel built from that archive."""
    folder = tmp_path_factory.mktemp("build")
    source = folder / "source"
    ignore = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info", "demo-output")
    shutil.copytree(ROOT, source, symlinks=True, ignore=ignore)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", source, cwd=folder)
    (archive,) = (folder / "dist").glob("*.tar.gz")
    (wheel,) = (folder / "dist").glob("*.whl")
    return archive, wheel


def test_the_source_archive_contains_every_file(built):
    with tarfile.open(built[0]) as archive:
        members = {m.name.partition("/")[2] for m in archive.getmembers() if m.isfile()}
    assert expected_files() <= members
    assert {"LICENSE", "README.md", "pyproject.toml"} <= members


def test_the_wheel_contains_every_file_and_nothing_else(built):
    with zipfile.ZipFile(built[1]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == expected_files()
    assert any(name.startswith("ppl/inference/") for name in names)
    assert any(name.startswith("ppl/models/") for name in names)


def test_the_wheel_runs_the_readme_in_a_fresh_environment(built, tmp_path):
    """The environment sees this one's dependencies through a path file, but its own copy of ppl first."""
    home = tmp_path / "environment"
    venv.create(home, with_pip=True, symlinks=os.name != "nt")
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", built[1], cwd=tmp_path)
    purelib = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run(python, "-c", purelib, cwd=tmp_path).strip())
    paths = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (site / "dependencies.pth").write_text("\n".join(paths) + "\n")

    where = "import ppl, ppl.inference as i, ppl.models as m; print(ppl.__file__, i.__file__, m.__file__)"
    for path in run(python, "-c", where, cwd=tmp_path).split():
        assert Path(path).is_relative_to(site), path

    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.M | re.S)
    (tmp_path / "readme.py").write_text("\n".join(blocks))
    assert "theta" in run(python, "readme.py", cwd=tmp_path)
