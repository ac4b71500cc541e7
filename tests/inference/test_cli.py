"""The command line: tables are read as they are, mistakes are located, runs are killed, resumed and reported."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ppl import dist
from ppl.inference import infer, status
from ppl.inference.cli import main
from ppl.inference.cli.errors import UserError
from ppl.inference.cli.program import build, load
from ppl.inference.cli.table import parse

pytestmark = pytest.mark.standard_promotion

SCHOOLS = "school,effect,error\nA,28,15\nB,8,10\nC,-3,16\nD,7,11\nE,-1,9\nF,1,11\nG,18,10\nH,12,18\n"

README = """
import numpy as np
import ppl
from ppl import dist


@ppl.model
def eight_schools(error):
    mu = ppl.sample("mu", dist.Normal(0.0, 5.0))
    tau = ppl.sample("tau", dist.HalfCauchy(5.0))

    @ppl.plate("school", error, coords=list("ABCDEFGH"))
    def _(e):  # one school, with e its entry of error
        z = ppl.sample("z", dist.Normal(0.0, 1.0))
        theta = ppl.record("theta", mu + tau * z)
        ppl.sample("y", dist.Normal(theta, e))


@ppl.model
def labelled(error, school, school_labels, spread=5.0):
    mu = ppl.sample("mu", dist.Normal(0.0, spread))

    @ppl.plate("school", len(school_labels), coords=school_labels)
    def theta(i):
        return ppl.sample("theta", dist.Normal(mu, 3.0))

    @ppl.plate("row", error, school)
    def _(e, s):
        ppl.sample("effect", dist.Normal(theta[s], e))


def of_columns(columns):
    codes, labels = ppl.index(columns["school"])
    return labelled(columns["error"], codes, labels.tolist()).condition(effect=columns["effect"])


def returns_nothing(columns):
    pass


ready = eight_schools(np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])).condition(
    y=np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
)
number = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A directory with the model and its table, left as it was found: no module, no path stays behind."""
    (tmp_path / "schools_model.py").write_text(README)
    (tmp_path / "schools.csv").write_text(SCHOOLS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith(("schools_model", "model_")):
            del sys.modules[name]


def made(table, name="eight_schools", columns=None, settings=None, conditions=None, missing=None):
    thing, found = load(f"schools_model.py:{name}")
    program, said = build(thing, found, table, columns or {}, settings or {}, conditions or {}, missing or {})
    return program, said


# ------------------------------------------------------------------------------------------------------ tables


def test_columns_keep_their_kinds():
    text = "i,x,b,t,g,h\n1,1.5,true,a,1,\n-2,2e3,False,b c,,\n+3,.5,TRUE,,NA,\n"
    columns = parse(text).columns
    assert columns["i"].dtype == np.int64 and columns["i"].tolist() == [1, -2, 3]
    assert columns["x"].tolist() == [1.5, 2000.0, 0.5]
    assert columns["b"].dtype == bool and columns["b"].tolist() == [True, False, True]
    assert columns["t"].tolist() == ["a", "b c", ""]
    np.testing.assert_array_equal(columns["g"], [1.0, np.nan, np.nan])
    assert np.isnan(columns["h"]).all()


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ("007", "begins with a zero"),
        ("1_000", "not a number"),
        ("99999999999999999999", "more than 64 bits"),
        ("1,5", "not a number"),
        ("0x1f", "not a number"),
        ("--1", "not a number"),
        ("\u0661", "not a number"),  # a digit elsewhere, which Python's int takes
        ("1 2", "not a number"),
    ],
)
def test_cells_that_would_change_make_a_column_text(cell, why):
    table = parse(f'x,y\n1,2\n"{cell}",3\n')
    assert table.columns["x"].tolist() == ["1", cell]
    assert table.columns["y"].tolist() == [2, 3]
    with pytest.raises(UserError, match=f"line 3 .*{why}"):
        table.numbers("x", "parameter 'x'")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "at least one row"),
        ("x,y\n", "at least one row"),
        ("x,x\n1,2\n", "two columns named 'x'"),
        ("x,\n1,2\n", "column 2 has no name"),
        ("x,y\n1,2\n3\n", "line 3: 1 cells, but there are 2 columns"),
        ("x,y\n1,2\n\n3,4,5\n", "line 4: 3 cells"),
        ('x,y\n1,"2\n', "line"),
    ],
)
def test_broken_tables_are_located(text, match):
    with pytest.raises(UserError, match=match):
        parse(text)


def test_table_files(tmp_path):
    from ppl.inference.cli.table import read_table

    (tmp_path / "t.tsv").write_bytes("\ufeffa\tb\r\n1\t2,5\r\n".encode())
    table = read_table(tmp_path / "t.tsv")
    assert table.columns["a"].tolist() == [1] and table.columns["b"].tolist() == ["2,5"]
    with pytest.raises(UserError, match=r"there is no file .*nothing.csv"):
        read_table(tmp_path / "nothing.csv")
    (tmp_path / "latin.csv").write_bytes("a\nf\xe9\n".encode("latin-1"))
    with pytest.raises(UserError, match="UTF-8"):
        read_table(tmp_path / "latin.csv")
    with pytest.raises(UserError, match=r"no column 'aa' \(did you mean 'a'\?\)"):
        table.column("aa", "parameter 'aa'")


# ------------------------------------------------------------------------------------------------------ programs


def test_a_model_is_filled_by_name_and_conditioned(folder):
    program, said = made(parse(SCHOOLS), conditions={"y": "effect"})
    np.testing.assert_array_equal(program.conditions["y"], [28, 8, -3, 7, -1, 1, 18, 12])
    np.testing.assert_array_equal(program.inputs["error"], [15, 10, 16, 11, 9, 11, 10, 18])
    assert said == ["error <- column 'error'", "condition y <- column 'effect'", "not used: school"]
    here, _ = made(None, "ready")
    values = {"mu": 1.0, "tau": 2.0, "z": np.linspace(-1, 1, 8)}
    np.testing.assert_allclose(program.log_prob(values), here.log_prob(values), rtol=1e-6)


def test_columns_named_like_sites_are_conditions_unless_some_are_given(folder):

    table = parse("error,y,z\n1,2,0.5\n3,4,0.1\n1,1,1\n1,1,1\n1,1,1\n1,1,1\n1,1,1\n1,1,1\n")
    assert set(made(table)[0].conditions) == {"y", "z"}
    assert set(made(table, conditions={"y": "y"})[0].conditions) == {"y"}


def test_text_becomes_codes_and_labels_where_the_model_asks(folder):
    program, said = made(parse(SCHOOLS), "labelled", settings={"spread": 2.0})
    assert program.inputs["school"].tolist() == list(range(8))
    assert program.coords["school"].tolist() == list("ABCDEFGH")
    assert program.inputs["spread"] == 2.0
    assert set(program.conditions) == {"effect"}  # a column named like a site
    assert "codes and labels of column 'school'" in said[1] and len(said) == 3
    other, _ = made(parse(SCHOOLS), "of_columns")
    values = {"mu": 1.0, "theta": np.linspace(-1, 1, 8)}
    wide, _ = made(parse(SCHOOLS), "labelled")
    np.testing.assert_allclose(other.log_prob(values), wide.log_prob(values), rtol=1e-6)


def test_gaps_need_a_policy(folder):
    table = parse(SCHOOLS.replace("-3,16", ",16"))
    with pytest.raises(UserError, match="line 4: column 'effect' has no value there.*--missing y=marginalize"):
        made(table, conditions={"y": "effect"})
    program, _ = made(table, conditions={"y": "effect"}, missing={"y": "marginalize"})
    values = {"mu": 0.5, "tau": 2.0, "z": np.zeros(8)}
    whole, _ = made(parse(SCHOOLS), conditions={"y": "effect"})
    lost = dist.Normal(0.5, 16.0).log_prob(-3.0)
    np.testing.assert_allclose(program.log_prob(values) + lost, whole.log_prob(values), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("eight_schols", {}, r"no 'eight_schols' \(did you mean 'eight_schools'\?\)"),
        ("number", {}, "is a int; a model"),
        ("eight_schools", {"columns": {"error": "eror"}}, r"no column 'eror' \(did you mean 'error'\?\), needed for"),
        ("eight_schools", {"columns": {"errors": "error"}}, r"no such parameter \(did you mean 'error'\?\)"),
        ("eight_schools", {"settings": {"n": 1}}, "no such parameter; it has error"),
        ("eight_schools", {"conditions": {"yy": "effect"}}, r"no such random variable.*it has mu, tau, z, y"),
        ("eight_schools", {"conditions": {"theta": "effect"}}, "no such random variable"),
        ("eight_schools", {"conditions": {"y": "school"}}, "holds text: 'A' on line 2 is not a number"),
        ("eight_schools", {"missing": {"x": "impute"}}, "--missing x"),
        ("eight_schools", {"columns": {"error": "school"}}, "parameter error_labels too"),
        ("ready", {"settings": {"a": 1}}, "but ready is a program"),
        ("returns_nothing", {}, "returned a NoneType"),
    ],
)
def test_mistakes_name_the_closest(folder, name, options, match):
    with pytest.raises(UserError, match=match):
        made(parse(SCHOOLS), name, **options)


def test_no_table(folder):
    with pytest.raises(UserError, match=r"parameter 'error' of eight_schools has no value: give a table by --data"):
        made(None)
    with pytest.raises(UserError, match="give the table by --data"):
        made(None, "of_columns")
    with pytest.raises(UserError, match="there is no file elsewhere.py"):
        load("elsewhere.py:x")
    with pytest.raises(UserError, match="say which"):
        load("schools_model.py")


def test_empty_labels_are_refused(folder):
    with pytest.raises(UserError, match="line 2: the text column 'school' is empty"):
        made(parse(SCHOOLS.replace("A,28", ",28")), "labelled")


# ------------------------------------------------------------------------------------------------------ commands

RUN = ["run", "schools_model.py:eight_schools", "--data", "schools.csv", "--condition", "y=effect", "--out", "a"]
SMALL = ["--chains", "4", "--draws", "50", "--option", "max_draws=50"]


def test_run_status_resume_and_report(folder, capsys):
    assert main([*RUN, *SMALL, "--seed", "3"]) == 0
    said = capsys.readouterr()
    assert "theta[H]" in said.out and "condition y <- column 'effect'" in said.err
    program, _ = made(parse(SCHOOLS), conditions={"y": "effect"})
    direct = infer(program, seed=3, chains=4, draws=50, progress=False)
    np.testing.assert_array_equal(infer.open("a").draws.positions[:, :50], direct.draws.positions[:, :50])

    assert main(["status", "a"]) == 0
    assert capsys.readouterr().out.startswith("a: finished, PooledHMC, phase sampling, 50 draws per chain")
    assert main(["status", "a", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["draws"] == 50

    assert main(["resume", "a", "--quiet"]) == 0
    assert main(["report", "a"]) == 0
    assert capsys.readouterr().out.strip() == "a/report.html"
    text = Path("a/report.html").read_text("utf-8")
    assert "could not be computed" not in text and "Observed and replicated <code>y</code>" in text
    assert main(["report", "a", "-o", "other.html", "--title", "<b>mine"]) == 0
    assert "&lt;b&gt;mine" in Path("other.html").read_text("utf-8")
    assert main(RUN) == 2 and "holds a run" in capsys.readouterr().err


def test_a_model_that_is_gone_still_gives_a_report(folder, capsys):
    assert main([*RUN, *SMALL, "--quiet"]) == 0
    os.rename("schools_model.py", "moved.py")
    sys.modules.pop("schools_model")
    sys.path.remove(str(folder))
    assert main(["report", "a"]) == 0
    assert "without the model" in capsys.readouterr().err
    assert "does not know its model" in Path("a/report.html").read_text("utf-8")
    assert main(["report", "a", "moved.py:eight_schools", "--data", "schools.csv", "--condition", "y=effect"]) in (0, 2)


def test_changed_data_are_refused(folder, capsys):
    assert main([*RUN, *SMALL, "--quiet", "--time-budget", "1e-9"]) in (75,)
    assert status("a")["stopped"] == "time_budget"
    Path("schools.csv").write_text(SCHOOLS.replace("28", "29"))
    again = ["schools_model.py:eight_schools", "--data", "schools.csv", "--condition", "y=effect"]
    assert main(["resume", "a", *again, "--quiet"]) == 2
    assert "the value of site 'y'" in capsys.readouterr().err
    Path("schools.csv").write_text(SCHOOLS)
    assert main(["resume", "a", *again, "--quiet"]) == 0
    assert status("a")["status"] == "finished"


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ([*RUN, "--until", "rhat=1"], "--until rhat=1: the rule is ess=N"),
        ([*RUN, "--option", "target=1"], "no such option (did you mean 'target_accept'?)"),
        ([*RUN, "--condition", "y"], "--condition y: write it as --condition NAME=VALUE"),
        ([*RUN, "--condition", "y=error"], "--condition y is given twice"),
        ([*RUN, "--draws", "-1"], "draws=-1 is not a positive whole number"),
        (["resume", "nowhere"], "no run at nowhere"),
        (["report", "nowhere"], "no run at nowhere"),
        (["resume", "nowhere", "--data", "x.csv"], "no run at nowhere"),
    ],
)
def test_wrong_uses_are_one_paragraph(folder, capsys, arguments, match):
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert match in said and "Traceback" not in said
    assert not Path("a").exists()
    assert main([*arguments, "--traceback"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_an_error_in_the_model_is_told_without_a_traceback(folder, capsys):
    Path("bad_model.py").write_text("import ppl\n\n@ppl.model\ndef f(x):\n    return x.nothing\n")
    assert main(["run", "bad_model.py:f", "--data", "schools.csv", "--column", "x=error", "--out", "b"]) == 2
    said = capsys.readouterr().err
    assert "nothing" in said and "Traceback" not in said
    sys.modules.pop("bad_model")


SLOWLY = """
import sys, time
from ppl.inference import loop
from ppl.inference.cli import main
loop.FIRST_BLOCK, loop.BLOCK_SECONDS, checkpoint = 50, (-1.0, 1e9), loop.Run._checkpoint
def slow(self):
    checkpoint(self)
    time.sleep(0.1)
loop.Run._checkpoint = slow
sys.exit(main(sys.argv[1:]))
"""


def child(*arguments, wait=True):
    """The command in a process of its own; one that is not waited for takes its time after every block."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "ppl.inference.cli"] if wait else [sys.executable, "-c", SLOWLY]
    pipe = subprocess.PIPE
    process = subprocess.Popen([*command, *arguments], env=environment, stdout=pipe, stderr=pipe, text=True)
    if not wait:
        return process
    out, said = process.communicate(timeout=300)
    return process.returncode, out, said


LONG = ["--engine", "nuts", "--chains", "2", "--draws", "200000", "--warmup", "200", "--seed", "1"]


def until_drawn(path, draws, process):
    """Wait for a live run to have so many draws."""
    for _ in range(1200):
        try:
            if status(path)["draws"] >= draws:
                return
        except (FileNotFoundError, ValueError):
            pass
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    raise AssertionError("the run did not come so far")


@pytest.mark.slow
def test_the_readme_runs_is_killed_resumes_and_reports(folder):
    """Killed twice, by SIGKILL and by SIGTERM, the run has the draws of an uninterrupted one."""
    process = child(*RUN, *LONG, "--quiet", wait=False)
    until_drawn("a", 200, process)
    code, out, _ = child("status", "a")
    assert code == 0 and "a: running" in out
    assert child("report", "a", "-o", "live.html")[0] == 0
    assert "still going on" in Path("live.html").read_text("utf-8")
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL

    process = child("resume", "a", "--quiet", wait=False)
    until_drawn("a", status("a")["draws"] + 500, process)
    process.terminate()
    _, said = process.communicate(timeout=300)
    assert process.returncode == 143, said
    assert "go on with: ppl resume a" in said and "Traceback" not in said
    assert status("a")["stopped"] == "SIGTERM"

    code, _, said = child("resume", "a", "--time-budget", "0.5", "--quiet")
    assert code == 75, said
    drawn = infer.open("a").draws.positions
    code, out, said = child("report", "a")
    assert (code, out.strip()) == (0, "a/report.html"), said
    assert "can be resumed" in Path("a/report.html").read_text("utf-8")

    code, _, said = child(*RUN[:-1], "b", *LONG[:5], str(drawn.shape[1]), *LONG[6:], "--quiet")
    assert code == 0, said
    np.testing.assert_array_equal(infer.open("b").draws.positions, drawn)


@pytest.mark.slow
def test_termination_before_the_first_draw(folder):
    slow = README.replace("import ppl\n", "import time\n\ntime.sleep(60)\nimport ppl\n", 1)
    Path("schools_model.py").write_text(slow)
    process = child(*RUN, wait=False)
    time.sleep(12.0)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert not Path("a").exists()


def test_the_console_script_is_the_function():
    import tomllib

    facts = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    assert facts["project"]["scripts"]["ppl"] == "ppl.inference.cli:main"
