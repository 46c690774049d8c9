"""``lightning-sparse-report``: one sweep, several, one that runs or was killed, and folders that are no sweep."""

import json
import subprocess
import sys

import pandas as pd
import pytest

from lightning_sparse.app.report_command import main
from lightning_sparse.report.figure_contents import FIGURES
from lightning_sparse.tables.combined_sweeps import combine


def test_a_sweep_is_reported_while_it_runs(make_sweep, write_job, capsys):
    folder = make_sweep(methods=("gradual",), levels=(0.5,), seeds=(0, 1))
    write_job(folder, "gradual", 0.9, 0, status="running")
    for name, text in (("torn", '{"run": "to'), ("empty", ""), ("list", "[1]"), ("null", "null")):
        (folder / name).mkdir()
        (folder / name / "job.json").write_text(text)
    with (folder / "gradual-0.5-s0" / "records.jsonl").open("a") as rows:
        rows.write('{"metric": "clean_acc')
    (folder / "gradual-0.5-s1" / "saliency-0.npz").write_bytes(b"")
    main([str(folder)])
    assert capsys.readouterr().out.rstrip().endswith(f"report: {folder / 'report.html'}")
    page = (folder / "report.html").read_text()
    assert "5 holes in this sweep" in page
    assert "it is still running, or was killed" in page
    assert page.count("job.json cannot be read") >= 4
    assert "of records.jsonl in gradual-0.5-s0 cannot be read (no JSON) and is left out" in page
    assert "saliency-0.npz in gradual-0.5-s1 cannot be read (truncated, or no npz) and is left out" in page


def test_a_figure_that_cannot_be_drawn_does_not_cost_the_page(make_sweep, monkeypatch, capsys):
    folder = make_sweep(methods=("gradual",), levels=(0.5,), seeds=(0,))

    def broken(sweep):
        raise ZeroDivisionError("no such <panel>")

    monkeypatch.setitem(FIGURES, "security_curves", broken)
    main([str(folder)])
    page = (folder / "report.html").read_text()
    assert "security_curves could not be drawn: ZeroDivisionError: no such &lt;panel&gt;" in page
    assert (folder / "figures" / "robustness.png").exists()
    assert not (folder / "figures" / "security_curves.png").exists()
    assert "security_curves could not be drawn" in capsys.readouterr().err


def test_several_sweeps_on_one_page(make_sweep, write_job, tmp_path, monkeypatch, capsys):
    quick = make_sweep(methods=("gradual",), levels=(0.5, 0.9), seeds=(0, 1))
    long = tmp_path / "long"
    for seed in (0, 1):
        write_job(long, "dense", 0.0, seed)
        write_job(long, "gradual", 0.5, seed)
        write_job(long, "brain", 0.5, seed)
    before = {path: path.stat().st_mtime_ns for path in [*quick.rglob("*"), *long.rglob("*")]}
    monkeypatch.chdir(tmp_path)
    main([str(quick), str(long)])
    output = tmp_path / "comparison"
    assert f"report: {output / 'report.html'}" in capsys.readouterr().out
    table = pd.read_csv(output / "table.csv")
    lines = [(line.method, line.sparsity_asked, line.seeds) for line in table.itertuples()]
    assert lines == [
        ("dense (long)", 0.0, 2),
        ("dense (quick)", 0.0, 2),
        ("brain", 0.5, 2),
        ("gradual (long)", 0.5, 2),
        ("gradual (quick)", 0.5, 2),
        ("gradual (quick)", 0.9, 2),
    ]
    page = (output / "report.html").read_text()
    assert "<h1>quick and long: what sparsity did</h1>" in page
    # Seeds share their jitter: each method against the dense networks of its own sweep.
    assert "gradual (quick) at sparsity 0.9: 85.5 ± 6.4 % clean" in page
    assert "brain at sparsity 0.5: 92.0 ± 6.4 % clean" in page
    assert "Against dense, in points: clean \N{MINUS SIGN}2.5" in page
    plots = json.loads(page.split('id="plots">')[1].split("</script>")[0])
    legend = [entry["name"] for entry in plots[0]["legend"]]
    assert legend == ["dense (long)", "dense (quick)", "brain", "gradual (long)", "gradual (quick)"]
    assert len(pd.read_csv(output / "records.csv")) == 12 * 18 + 8 * 2  # of jobs, and of agreement with dense
    assert (output / "figures" / "robustness.svg").exists()
    assert (output / "figures" / "maps_gradual-quick_gradient.png").exists()
    assert {path: path.stat().st_mtime_ns for path in [*quick.rglob("*"), *long.rglob("*")]} == before
    assert len(combine([quick, long], output).jobs) == 12  # its own report does not stand in the way


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "does not exist"),
        (["."], "holds no job"),
        (["quick", "--output", "x"], "is for several sweeps"),
        (["quick", "nowhere"], "does not exist"),
        (["quick", "long", "--output", "quick"], "is a sweep"),
        (["quick", "long", "--output", "pictures"], "holds something other"),
        (["quick", "long", "--output", "pictures/mine.png"], "holds something other"),
        ([], "FOLDER"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(make_sweep, write_job, tmp_path, monkeypatch, capsys, arguments, says):
    make_sweep(methods=(), seeds=(0,))
    write_job(tmp_path / "long", "dense", 0.0, 0)
    (tmp_path / "pictures" / "figures").mkdir(parents=True)
    (tmp_path / "pictures" / "mine.png").write_bytes(b"mine")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert says in error.splitlines()[-1]
    assert "Traceback" not in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long", "pictures", "quick"]  # nothing is made
    assert (tmp_path / "pictures" / "mine.png").exists()


def test_help_is_fast():
    slow = "{'pandas', 'matplotlib', 'jinja2', 'plotly', 'torch', 'hydra'}"
    code = f"import sys, lightning_sparse.app.report_command; print(sorted({slow} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_folder_of_something_else_is_left_as_it_is(tmp_path, monkeypatch, capsys):
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "job.json").write_text("[1, 2]")
    (tmp_path / "records.jsonl").write_text("mine")
    monkeypatch.setattr("sys.argv", ["lightning-sparse-report", str(tmp_path)])
    with pytest.raises(SystemExit):
        main()
    assert "no job.json in" in capsys.readouterr().err
    assert (tmp_path / "records.jsonl").read_text() == "mine"
