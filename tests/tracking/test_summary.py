"""A sweep's summary run is read back from the files that W&B wrote offline."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_sparse.results.jobs import Job, key_of
from lightning_sparse.results.records import Record
from lightning_sparse.tables.collect import collect
from lightning_sparse.tables.table import write_csv
from lightning_sparse.tracking import summary_run
from offline_runs import artifacts, axes, folders, history, lines, started, told_by

PROJECT = "tests"
LEVELS = (("dense", 0.0), ("gradual", 0.5), ("gradual", 0.9))
KEYS = ("saliency-0", "transfer-0")


def write_job(folder: Path, method: str, sparsity: float, seed: int, data: str = "digits", **about) -> None:
    name = f"{data}-{method}-{sparsity}-s{seed}"
    job = Job(name, method, data, "cnn", seed, sparsity, folder=folder / name, **about)
    job.folder.mkdir(parents=True)
    job.save(status="done", keys=KEYS, seconds=1.0)
    value = 1 - sparsity / 2 + seed / 100
    rows = [Record("clean_accuracy", value, 100), Record("cost_bits", 1e4 * (1 - sparsity) + 1e3, 100)]
    rows += [Record("robust_accuracy", value / 2, 100, attack="worst", norm="Linf", eps=0.1, trust="passed")]
    rows += [Record("gini", 0.5, 64, attribution="gradient")]
    job.record(rows, KEYS[0], sparsity and sparsity - 4e-6)  # whole connections
    job.record([], KEYS[1], sparsity)
    pictures, classes = np.full((3, 1, 4, 4), 0.5), np.arange(3)
    common = {"images": pictures, "labels": classes, "prediction": classes}
    heat = np.full((3, 4, 4), 1 - sparsity)
    np.savez(job.folder / "saliency-0.npz", gradient=heat, confidence=np.full(3, 0.9), **common)
    attacked = {"adversarial": pictures + 0.1, "adversarial_prediction": np.full(3, round(10 * sparsity))}
    np.savez(job.folder / "transfer-0.npz", eps=0.1, norm="Linf", **common, **attacked)


def write_report(folder: Path) -> None:
    """What the summary run takes of a report: the CSV files, the page, and the figures."""
    write_csv(collect(folder))
    (folder / "report.html").write_text("<!doctype html>")
    (folder / "figures").mkdir(exist_ok=True)
    Image.new("L", (8, 8)).save(folder / "figures" / "robustness.png")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs") / "quick"
    for method, sparsity in LEVELS:
        for seed in (0, 1):
            write_job(folder, method, sparsity, seed)
    failed = Job("gradual-0.98-s0", "gradual", "digits", "cnn", 0, 0.98, folder=folder / "gradual-0.98-s0")
    failed.folder.mkdir()
    failed.save(status="failed", error="diverged")
    return folder


@pytest.fixture(scope="module")
def told(sweep, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patched:
        for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
            patched.setenv(name, str(home))
        patched.delenv("WANDB_DATA_DIR", raising=False)
        write_report(sweep)
        summary_run(collect(sweep), project=PROJECT)
    assert not list(home.rglob("staging"))
    return lines(sweep)


def ends(told: list[dict]) -> dict:
    """The run's summary, as it stands in the end: dotted keys."""
    return {
        key: value for line in told if line["type"] == "summary" for key, value in line["summary"]["update"].items()
    }


def table(sweep: Path, told: list[dict], key: str) -> dict:
    return json.loads((folders(sweep)[0] / "files" / ends(told)[f"{key}.path"]).read_text())


def test_it_says_what_it_is(sweep, told):
    about = started(told)
    assert (about["run_id"], about["display_name"]) == (f"summary-quick-{key_of(str(sweep))}", "quick-summary")
    assert (about["run_group"], about["job_type"]) == ("quick", "summary")
    assert not about.get("resume")  # the one uploaded last takes the place of those before
    assert (ends(told)["jobs"], ends(told)["holes"]) == (7, 1)


def test_it_holds_the_tables_and_the_files(sweep, told):
    records, summary = table(sweep, told, "records"), table(sweep, told, "table")
    assert len(records["data"]) == 6 * 4
    assert {row[records["columns"].index("eps")] for row in records["data"]} == {None, 0.1}
    methods = [row[summary["columns"].index("method")] for row in summary["data"]]
    assert methods == ["dense", "gradual", "gradual", "gradual"]
    assert [row[summary["columns"].index("sparsity")] for row in summary["data"]] == [0.0, 0.5, 0.9, None]
    clean = [row[summary["columns"].index("clean/accuracy")] for row in summary["data"]]
    assert clean[:3] == pytest.approx([1.005, 0.755, 0.555])
    kept = artifacts(told)["report"]
    assert [file["path"] for file in kept] == ["records.csv", "report.html", "table.csv"]
    assert all(Path(file["local_path"]).is_relative_to(folders(sweep)[0]) for file in kept)
    assert ends(told)["figures/robustness._type"] == "image-file"


def test_it_draws_accuracy_security_and_the_pareto_front(sweep, told):
    shown = json.dumps([line for line in told if line["type"] == "config"])
    charts = {
        "versus density/clean/accuracy",
        "versus density/robust/worst/eps=0.1",
        "versus density/saliency/gradient/gini",
    }
    for chart in charts | {"versus eps/gradual", "versus kilobits/eps=0.1"}:
        assert f"_wandb.visualize.{chart}" in shown

    def drawn(key):
        found = {}
        for x, line, y in table(sweep, told, f"{key}_table")["data"]:
            found.setdefault(line, []).append((pytest.approx(x), pytest.approx(y)))
        return found

    assert drawn("versus density/robust/worst/eps=0.1") == {
        "gradual": [(0.5, 0.3775), (0.1, 0.2775)],
        "dense": [(0.1, 0.5025), (0.5, 0.5025), (1.0, 0.5025)],
    }
    assert drawn("versus eps/gradual") == {
        "dense": [(0, 1.005), (0.1, 0.5025)],
        "sparsity 0.5": [(0, 0.755), (0.1, 0.3775)],
        "sparsity 0.9": [(0, 0.555), (0.1, 0.2775)],
    }
    assert drawn("versus kilobits/eps=0.1") == {
        "dense": [(11, 0.5025)],
        "gradual": [(2, 0.2775), (6, 0.3775)],
        "Pareto front": [(2, 0.2775), (6, 0.3775), (11, 0.5025)],
    }


def test_of_a_sweep_by_bits_every_axis_is_of_bits(tmp_path):
    folder = tmp_path / "six"
    for method, level in (("dense", 0.0), ("share", 0.75), ("share", 0.9)):
        write_job(folder, method, level, 0, compressed=method != "dense")
    write_report(folder)
    summary_run(collect(folder), project=PROJECT)
    told = lines(folder)
    shown = json.dumps([line for line in told if line["type"] == "config"])
    assert "_wandb.visualize.versus bits/clean/accuracy" in shown
    assert "bits, share of dense float32" in shown
    assert "density" not in shown
    assert "versus sparsity" not in shown
    data = table(folder, told, "versus bits/robust/worst/eps=0.1_table")["data"]
    assert {(line, round(x, 9)) for x, line, y in data if line == "share"} == {("share", 0.25), ("share", 0.1)}
    curves = table(folder, told, "versus eps/share_table")["data"]
    assert {line for _, line, _ in curves} == {"dense", "25 % of the bits", "10 % of the bits"}
    assert [round(point["bits"], 9) for point in history(told)[1:]] == [1.0, 0.25, 0.1]
    assert not any("sparsity" in point for point in history(told))
    assert {axis for name, axis in axes(told).items() if name.endswith("/*")} == {"bits"}


def test_a_slider_goes_through_the_levels(sweep, told):
    levels = history(told)[1:]
    assert [level["sparsity"] for level in levels] == [0.0, 0.5, 0.9]
    # Plain numbers, which W&B and `wandb leet` draw without a click.
    assert levels[0]["robust/worst/eps=0.1/dense"] == pytest.approx(0.5025)
    assert levels[2]["robust/worst/eps=0.1/gradual"] == pytest.approx(0.2775)
    crafted, explained = "adversarial/gradual", "maps/gradual/gradient"
    for level in levels:
        reached = round(10 * level["sparsity"])
        assert level[f"{crafted}.captions"] == [f"class {label}: {label}, attacked {reached}" for label in range(3)]
        for key in (crafted, explained):
            assert [(folders(sweep)[0] / "files" / name).exists() for name in level[f"{key}.filenames"]] == [True] * 3
    names = [level[f"{explained}.filenames"][0] for level in levels]
    bright = [np.asarray(Image.open(folders(sweep)[0] / "files" / name))[:, -1].astype(int).sum() for name in names]
    assert bright == sorted(bright, reverse=True)  # one scale for all levels
    assert bright[0] > bright[2]


def test_the_same_numbers_make_no_new_run_and_others_continue_under_its_id(sweep, told, tmp_path):
    folder = shutil.copytree(sweep, tmp_path / "quick")
    summary_run(collect(folder), project=PROJECT)  # a copy elsewhere is another sweep
    assert len(folders(folder)) == 2
    summary_run(collect(folder), project=PROJECT)
    assert len(folders(folder)) == 2
    write_job(folder, "dense", 0.0, 0, data="letters")
    write_job(folder, "gradual", 0.9, 0, data="letters")
    write_report(folder)
    summary_run(collect(folder), project=PROJECT)
    *_, again = folders(folder)
    said = [json.loads(line) for line in told_by("leet", "inspect", "--json", str(again)).splitlines()]
    assert started(said)["run_id"] == f"summary-quick-{key_of(str(folder))}"
    # A mean over two data sets is the mean of nothing.
    shown = set(ends(said))
    assert {f"versus density/{data}, cnn/clean/accuracy_table.path" for data in ("digits", "letters")} <= shown
    assert {f"maps/{data}, cnn/gradual/gradient.count" for data in ("digits", "letters")} <= shown
    assert "versus density/clean/accuracy_table.path" not in shown
    assert history(said)[-1]["clean/accuracy/letters, cnn/gradual"] == pytest.approx(0.55)
