"""W&B is read back from the files it wrote offline."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lightning_sparse.errors import SparsityError
from lightning_sparse.records import Record, append
from lightning_sparse.report import write_report
from lightning_sparse.tracking import finish, job_run, lightning_logger, log_records, summary_run

PROJECT = "tests"


@pytest.fixture(autouse=True)
def _wandb_keeps_out_of_the_home(tmp_path, monkeypatch):
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "home"))


def job(name: str, folder: Path, **changes):
    config = {"pruning": {"final": 0.9}, "method": "gradual", "seed": 0}
    known = {"project": PROJECT, "group": "quick/gradual", "tags": ["digits", "gradual", "gradual"], "config": config}
    return job_run(name=name, folder=folder, **(known | changes))


def inspect(folder: Path, *arguments: str) -> str:
    wandb = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", *arguments]
    found = list((folder / "wandb").glob("offline-run-*"))
    assert len(found) == 1
    return subprocess.run([*wandb, str(found[0])], capture_output=True, text=True, check=True).stdout


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in inspect(folder).splitlines()]


def history(folder: Path) -> list[dict]:
    return [line["history"]["item"] for line in lines(folder) if line["type"] == "history"]


def rows(sparsity: float = 0.9) -> list[Record]:
    owner = {"run": "gradual-0.9-s0", "method": "gradual", "sparsity_asked": sparsity, "sparsity": sparsity}
    return [
        Record("clean_accuracy", 0.875, 200, **owner),
        Record("robust_accuracy", 0.25, 100, attack="worst", norm="Linf", eps=0.1, **owner),
        Record("gini", math.nan, 0, attribution="gradient", **owner),
        Record("gini", 0.5, 64, attribution="integrated_gradients", **owner),
    ]


def test_a_job_is_one_point_on_the_sparsity_axis(tmp_path, capfd):
    run = job("gradual-0.9-s0", tmp_path)
    logger = lightning_logger(run)
    logger.log_metrics({"train/loss": 1.5}, step=3)
    logger.log_metrics({"train/loss": 0.5}, step=7)
    log_records(run, rows())
    finish(run)

    told = lines(tmp_path)
    (started,) = [line["run"] for line in told if line["type"] == "run"]
    assert started["display_name"] == "gradual-0.9-s0"
    assert started["project"] == PROJECT
    assert started["run_group"] == "quick/gradual"
    assert started["job_type"] == "train"
    assert sorted(started["tags"]) == ["digits", "gradual"]
    metrics = {line["metric"].get("glob_name"): line["metric"].get("step_metric") for line in told if "metric" in line}
    assert {metrics[f"{kind}/*"] for kind in ("clean", "robust", "saliency")} == {"sparsity"}
    assert metrics["*"] == "trainer/global_step"

    trained = [
        (point["trainer/global_step"], point["train/loss"]) for point in history(tmp_path) if "train/loss" in point
    ]
    assert trained == [(3, 1.5), (7, 0.5)]
    (measured,) = [point for point in history(tmp_path) if "sparsity" in point]
    expected = {
        "sparsity": 0.9,
        "clean/accuracy": 0.875,
        "robust/worst/eps=0.1": 0.25,
        "saliency/integrated_gradients/gini": 0.5,
    }
    assert {key: measured[key] for key in expected} == expected
    assert "saliency/gradient/gini" not in measured  # NaN

    end = json.loads(inspect(tmp_path, "--summary"))
    assert end["state"] == "finished"
    assert end["exit_code"] == 0
    assert {key: end["summary"][key] for key in expected} == expected
    assert end["config"]["pruning"] == {"final": 0.9}
    assert (end["config"]["method"], end["config"]["seed"]) == ("gradual", 0)
    said = capfd.readouterr()
    assert "wandb" not in said.out + said.err


@pytest.mark.filterwarnings("ignore:.*does not have many workers")  # nor do four batches need them
def test_a_trainer_writes_into_the_jobs_run(tmp_path):
    from lightning.pytorch import Trainer
    from lightning.pytorch.demos.boring_classes import BoringModel

    class Logging(BoringModel):
        def training_step(self, batch, index):
            loss = self.layer(batch).square().mean()
            self.log("loss", loss)
            return loss

    run = job("boring", tmp_path)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "limit_val_batches": 0}
    trainer = Trainer(
        logger=lightning_logger(run),
        max_steps=4,
        log_every_n_steps=2,
        accelerator="cpu",
        default_root_dir=tmp_path,
        **quiet,
    )
    trainer.fit(Logging())
    log_records(run, rows())
    finish(run)
    assert [point["trainer/global_step"] for point in history(tmp_path) if "loss" in point] == [1, 3]
    assert list(tmp_path.rglob("*.ckpt"))
    assert not list(Path.cwd().glob("lightning_logs"))


def test_two_runs_of_one_process_stay_apart(tmp_path):
    first = job("first", tmp_path / "a")
    finish(first, failed=True)
    second = job("second", tmp_path / "b")
    log_records(second, rows())
    finish(second)
    assert first.id != second.id
    assert history(tmp_path / "a") == []
    failed, done = (json.loads(inspect(tmp_path / name, "--summary")) for name in "ab")
    assert (failed["name"], failed["exit_code"]) == ("first", 1)
    assert (done["name"], done["exit_code"]) == ("second", 0)


def test_the_host_is_not_in_the_files(tmp_path):
    import platform

    run = job("quiet", tmp_path)
    finish(run)
    told = inspect(tmp_path)
    assert platform.node() not in told.replace(str(tmp_path), "") or len(platform.node()) < 4
    assert '"environment"' not in told
    assert not list(tmp_path.rglob("requirements.txt"))


def test_disabled_is_nothing(tmp_path):
    run = job("off", tmp_path, mode="disabled")
    assert run is None
    assert lightning_logger(run) is None
    log_records(run, rows())
    finish(run)
    summary_run(tmp_path, project=PROJECT, mode="disabled")
    assert not list(tmp_path.rglob("*wandb*"))


def test_an_unknown_mode_is_refused(tmp_path):
    with pytest.raises(SparsityError, match="did you mean 'offline'"):
        job("x", tmp_path, mode="ofline")
    with pytest.raises(SparsityError, match="allowed: disabled, offline, online"):
        summary_run(tmp_path, project=PROJECT, mode="dryrun")


def test_online_without_an_account_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    for place in ("HOME", "NETRC", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(place, str(tmp_path / "nobody"))
    with pytest.raises(SparsityError, match=r"run `wandb login` first, or write mode='offline'"):
        job_run(name="a", project=PROJECT, group="g", folder=tmp_path, mode="online")


def test_without_wandb_the_message_says_what_to_install(tmp_path):
    code = (
        "import sys; sys.modules['wandb'] = None\n"  # what an import of a package that is not there meets
        "from lightning_sparse.tracking import job_run\n"
        "job_run(name='a', project='p', group='g', folder='.')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert 'pip install "lightning-sparse[wandb]"' in done.stderr
    assert "SparsityError" in done.stderr


def test_importing_tracking_is_cheap():
    code = "import sys, lightning_sparse.tracking; print(sorted({'wandb', 'lightning', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def write_sweep(folder: Path) -> None:
    for method, sparsity, seed in [
        (m, s, k) for m, s in (("dense", 0.0), ("gradual", 0.5), ("gradual", 0.9)) for k in (0, 1)
    ]:
        name = f"{method}-{sparsity}-s{seed}"
        identity = {"run": name, "method": method, "data": "digits", "model": "cnn", "seed": seed}
        identity["sparsity_asked"] = sparsity
        failed = (sparsity, seed) == (0.9, 1)
        status = {"status": "failed", "error": "diverged"} if failed else {"status": "done", "error": ""}
        (folder / name).mkdir(parents=True)
        (folder / name / "job.json").write_text(
            json.dumps(identity | status | {"version": "0.1.0", "seconds": 1.0, "keys": ["saliency-0"]})
        )
        if failed:
            continue
        owner = identity | {"sparsity": sparsity, "key": "saliency-0"}
        value = 1 - sparsity / 2 + seed / 100
        robust = Record("robust_accuracy", value / 2, 100, attack="worst", norm="Linf", eps=0.1, **owner)
        gini = Record("gini", 0.5, 64, attribution="gradient", **owner)
        append(folder / name / "records.jsonl", [Record("clean_accuracy", value, 100, **owner), robust, gini])
        pictures = np.full((3, 1, 4, 4), 0.5, dtype=np.float16)
        classes = np.arange(3)
        maps = np.ones((3, 4, 4), dtype=np.float32)
        share = np.full(3, 0.9, dtype=np.float32)
        saved = {"images": pictures, "labels": classes, "prediction": classes, "confidence": share, "gradient": maps}
        np.savez(folder / name / "saliency-0.npz", **saved)


def test_the_summary_run_holds_tables_charts_pictures_and_the_file(tmp_path, capfd):
    folder = tmp_path / "quick"
    write_sweep(folder)
    with pytest.raises(SparsityError, match=r"write_report\(folder\) first"):
        summary_run(folder, project=PROJECT)
    write_report(folder)
    summary_run(folder, project=PROJECT)

    told = lines(folder)
    (started,) = [line["run"] for line in told if line["type"] == "run"]
    assert (started["run_group"], started["job_type"]) == ("quick", "summary")
    end = json.loads(inspect(folder, "--summary"))
    assert end["exit_code"] == 0
    assert (end["summary"]["jobs"], end["summary"]["holes"]) == (6, 1)

    def table(key: str) -> dict:
        media = next((folder / "wandb").glob("offline-run-*")) / "files" / end["summary"][key]["path"]
        return json.loads(media.read_text())

    records = table("records")
    assert len(records["data"]) == 5 * 3
    eps = {row[records["columns"].index("eps")] for row in records["data"]}
    assert eps == {None, 0.1}
    summary = table("table")
    assert [row[summary["columns"].index("method")] for row in summary["data"]] == ["dense", "gradual", "gradual"]
    clean = [row[summary["columns"].index("clean/accuracy")] for row in summary["data"]]
    assert clean == pytest.approx([1.005, 0.755, 0.55])

    charts = {"charts/clean/accuracy", "charts/robust/worst/eps=0.1", "charts/saliency/gradient/gini"}
    shown = json.dumps([line for line in told if line["type"] == "config"])
    assert all(f"_wandb.visualize.{chart}" in shown for chart in charts)
    points = table("charts/robust/worst/eps=0.1_table")["data"]
    assert sorted(point for point in points if point[1] == "gradual") == [
        [pytest.approx(0.1), "gradual", pytest.approx(0.275)],
        [0.5, "gradual", pytest.approx(0.3775)],
    ]
    assert sorted(point[0] for point in points if point[1] == "dense") == pytest.approx([0.1, 0.5, 1.0])

    # Plain numbers too, a point per sparsity: W&B and `wandb leet` draw those without a click.
    levels = history(folder)[1:]
    assert [level["sparsity"] for level in levels] == [0.0, 0.5, 0.9]
    assert levels[0]["robust/worst/eps=0.1/dense"] == pytest.approx(0.5025)
    assert levels[2]["robust/worst/eps=0.1/gradual"] == pytest.approx(0.275)

    assert {"figures/robustness", "figures/maps_gradual_gradient"} <= set(end["summary"])
    kept = [line["artifact"] for line in told if line["type"] == "artifact" and line["artifact"]["type"] == "records"]
    assert [entry["path"] for entry in kept[0]["manifest"]["contents"]] == ["records.csv"]
    said = capfd.readouterr()
    assert "wandb" not in said.out + said.err
