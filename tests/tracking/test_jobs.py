"""A job's run is read back from the files that W&B wrote offline."""

import base64
import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import settings
from lightning_sparse import GradualPruning, SparsityMonitor
from lightning_sparse.engine.masks import Masks, load_masks
from lightning_sparse.errors import SparsityError
from lightning_sparse.results.jobs import Job, key_of
from lightning_sparse.results.quantities import QUANTITIES
from lightning_sparse.results.records import Record
from lightning_sparse.tracking import finish, job_run, lightning_logger, log_job, summary_run
from offline_runs import artifacts, axes, folders, history, inspect, lines, started, told_by

PROJECT = "tests"


def job(name: str, folder: Path, **changes):
    config = {"pruning": {"final": 0.9, "layers": {"first": [0.5]}}, "method": "gradual", "seed": 0}
    known = {"project": PROJECT, "group": "quick/gradual", "tags": ["digits", "gradual", "gradual"], "config": config}
    return job_run(name=name, folder=folder, **(known | changes))


def rows(sparsity: float = 0.9) -> list[Record]:
    owner = {"run": "gradual-0.9-s0", "method": "gradual", "sparsity_asked": sparsity, "sparsity": sparsity}
    return [
        Record("clean_accuracy", 0.875, 200, **owner),
        Record("robust_accuracy", 0.25, 100, attack="worst", norm="Linf", eps=0.1, **owner),
        Record("gini", math.nan, 0, attribution="gradient", **owner),
        Record("gini", 0.5, 64, attribution="integrated_gradients", **owner),
    ]


def log_rows(run, folder: Path) -> None:
    """Log a job that has these rows."""
    what = Job("gradual-0.9-s0", "gradual", "digits", "cnn", 0, 0.9, folder=folder / "rows").save(keys=("clean-0",))
    what.record(rows(), "clean-0", 0.9)
    log_job(run, what)


def test_what_is_compressed_is_one_point_on_the_axis_of_bits(tmp_path):
    run = job("share-0.9-s0", tmp_path / "six", compressed=True)
    what = Job("share-0.9-s0", "share", "digits", "cnn", 0, 0.9, compressed=True, folder=tmp_path / "rows")
    what.save(keys=("clean-0",)).record(rows(), "clean-0", 0.9375)
    log_job(run, what)
    finish(run)
    told = lines(tmp_path / "six")
    assert {axis for name, axis in axes(told).items() if name[:-2] in ("clean", "robust", "maps")} == {"bits"}
    (measured,) = [point for point in history(told) if "clean/accuracy" in point]
    assert (measured["bits"], measured["clean/accuracy"]) == (0.0625, 0.875)
    assert "sparsity" not in measured


def test_a_job_is_one_point_on_the_sparsity_axis(tmp_path, capfd):
    sweep = tmp_path / "quick"
    run = job("gradual-0.9-s0", sweep)
    logger = lightning_logger(run)
    logger.log_metrics({"train/loss": 1.5}, step=3)
    logger.log_metrics({"train/loss": 0.5}, step=7)
    log_rows(run, sweep)
    finish(run)

    told = lines(sweep)
    about = started(told)
    assert (about["run_id"], about["display_name"]) == (f"gradual-0.9-s0-quick-{key_of(str(sweep))}", "gradual-0.9-s0")
    assert (about["project"], about["run_group"], about["job_type"]) == (PROJECT, "quick/gradual", "train")
    assert sorted(about["tags"]) == ["digits", "gradual"]
    drawn = axes(told)
    kinds = {*(described.group for described in QUANTITIES), "maps", "adversarial"}
    assert {"clean", "robust", "saliency", "cost", "vog", "shortcut"} < kinds
    assert {drawn[f"{kind}/*"] for kind in kinds} == {"sparsity"}
    curves = ("*", "sparsity", "robust/monitor/*", "vog/rank_stability")  # drawn during the training
    assert {drawn[name] for name in curves} == {"trainer/global_step"}

    trained = [(point["trainer/global_step"], point["train/loss"]) for point in history(told) if "train/loss" in point]
    assert trained == [(3, 1.5), (7, 0.5)]
    (measured,) = [point for point in history(told) if "sparsity" in point]
    expected = {
        "sparsity": 0.9,
        "clean/accuracy": 0.875,
        "robust/worst/eps=0.1": 0.25,
        "saliency/integrated_gradients/gini": 0.5,
    }
    assert {key: measured[key] for key in expected} == expected
    assert "saliency/gradient/gini" not in measured  # NaN

    end = json.loads(inspect(sweep, "--summary"))
    assert end["state"] == "finished"
    assert end["exit_code"] == 0
    assert {key: end["summary"][key] for key in expected} == expected
    settled = {"pruning.final": 0.9, "pruning.layers.first": [0.5], "method": "gradual", "seed": 0}
    assert {key: value for key, value in end["config"].items() if not key.startswith("_")} == settled
    said = capfd.readouterr()
    assert "wandb" not in said.out + said.err


def test_a_trainer_writes_what_the_masks_do_into_the_jobs_run(tmp_path):
    run = job("pruned", tmp_path)
    monitor = SparsityMonitor()
    pruning = GradualPruning(0.9, every=4)
    trainer = settings.quiet(pruning, monitor, logger=lightning_logger(run), max_epochs=2, default_root_dir=tmp_path)
    trainer.fit(settings.Module(), settings.batches())
    log_rows(run, tmp_path)
    finish(run)

    told = lines(tmp_path)
    drawn = axes(told)
    watched = [point for point in history(told) if "turnover" in point]
    steps = [point["trainer/global_step"] for point in watched]
    assert len(steps) > 3
    assert steps == sorted(steps)
    assert steps[-1] <= trainer.global_step
    sparsities = [point["sparsity"] for point in watched]
    assert sparsities == sorted(sparsities)
    assert sparsities[-1] == pytest.approx(pruning.sparsity)
    layers = [f"layer_sparsity/{name}" for name in pruning.masks]
    assert layers
    for point in watched:
        assert all(0 <= point[layer] <= 1 for layer in layers)
    assert [layer for layer in layers if drawn.get(layer, drawn["*"]) != "trainer/global_step"] == []
    assert not list(Path.cwd().glob("lightning_logs"))


@pytest.mark.filterwarnings("ignore:.*does not have many workers")  # nor do four batches need them
def test_a_trainer_of_the_users_own_writes_into_the_jobs_run(tmp_path):
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
    log_rows(run, tmp_path)
    finish(run)
    assert [point["trainer/global_step"] for point in history(lines(tmp_path)) if "loss" in point] == [1, 3]
    assert list(tmp_path.rglob("*.ckpt"))
    assert not list(Path.cwd().glob("lightning_logs"))


def measured_job(sweep: Path) -> Job:
    """A job's folder with numbers and arrays, as measuring leaves them: colour images, of classes 2, 2, 1, 0."""
    what = Job("gradual-0.9-s0", "gradual", "photos", "cnn", 0, 0.9, folder=sweep / "gradual-0.9-s0")
    keys = ("clean-0", "saliency-0", "transfer-0")
    what.folder.mkdir(parents=True)
    what = what.save(keys=keys)
    for key in keys:
        what.record(rows() if key == "clean-0" else [], key, 0.9)
    pictures, labels = np.full((4, 3, 8, 8), 0.5), np.array([2, 2, 1, 0])
    heat = np.linspace(0, 1, 4 * 64).reshape(4, 8, 8)
    shown = {"images": pictures.astype(np.float16), "labels": labels, "prediction": labels, "confidence": np.ones(4)}
    np.savez(what.folder / "saliency-0.npz", gradient=heat, **shown, **{"gradient/gini": np.ones(4)})
    attacked = pictures.copy()
    attacked[:, 0, 0, 0] += 0.1
    said = {"labels": labels, "prediction": labels, "adversarial_prediction": np.array([7, 7, 8, 9])}
    np.savez(what.folder / "transfer-0.npz", images=pictures, adversarial=attacked, eps=0.1, norm="Linf", **said)
    return what


def test_a_job_shows_its_images_and_keeps_its_masks_and_records(tmp_path):
    what = measured_job(tmp_path / "quick")
    masks = Masks({"layer.weight": torch.rand(20, 30) > 0.9})
    run = job(what.run, tmp_path / "quick")
    log_job(run, what, masks)
    finish(run)
    what.record(rows(), "clean-1", 0.9)  # a later measurement, before anything is uploaded

    told = lines(tmp_path / "quick")
    (point,) = history(told)
    assert (point["sparsity"], point["robust/worst/eps=0.1"]) == (0.9, 0.25)
    (folder,) = folders(tmp_path / "quick")
    crafted, explained = "adversarial/eps=0.1", "maps/gradient"
    assert point[f"{crafted}.captions"] == [
        "class 2: 2, attacked 7",
        "class 1: 1, attacked 8",
        "class 0: 0, attacked 9",
    ]
    assert point[f"{explained}.captions"] == [f"class {label}: {label}, 100 %" for label in (2, 1, 0)]
    pictures = {
        key: [np.asarray(Image.open(folder / "files" / name)) for name in point[f"{key}.filenames"]]
        for key in (crafted, explained)
    }
    assert [len(found) for found in pictures.values()] == [3, 3]
    image, attacked, difference = np.split(pictures[crafted][0][:, :, 0], [96 + 6, 2 * 96 + 12], axis=1)
    assert (image[:, :96] == 128).all()
    assert (attacked[:12, :12] == 153).all()  # the pixel that was attacked
    assert (attacked[12:, :96] == 128).all()
    assert (difference[:12, :12] == 255).all()  # by the most
    assert (difference[12:] == 128).all()  # not at all
    brightness = pictures[explained][1][:, 96 + 6 :].astype(int).sum(axis=2)
    assert brightness[-1, -1] == brightness.max()

    kept = artifacts(told)
    assert {kind: [file["path"] for file in files] for kind, files in kept.items()} == {
        "records": ["records.jsonl"],
        "masks": ["masks.pt"],
    }
    for (file,) in kept.values():
        content = Path(file["local_path"]).read_bytes()
        assert Path(file["local_path"]).is_relative_to(folder)
        assert base64.b64encode(hashlib.md5(content).digest()).decode() == file["digest"]
    back = load_masks(kept["masks"][0]["local_path"])
    assert torch.equal(back["layer.weight"], masks["layer.weight"])
    assert not list(tmp_path.glob("home/**/staging/*"))


def test_a_job_that_goes_on_is_the_same_run(tmp_path):
    for _ in range(2):
        run = job("first", tmp_path)
        log_rows(run, tmp_path)
        finish(run)
    found = folders(tmp_path)
    told = [told_by("leet", "inspect", "--json", str(folder)).splitlines() for folder in found]
    about = [started([json.loads(line) for line in one]) for one in told]
    assert len({run["run_id"] for run in about}) == 1
    assert [run["resume"] for run in about] == [True, True]  # what makes `wandb sync` append the second to the first
    dry = subprocess.run(
        [sys.executable, "-m", "wandb", "sync", "--dry-run", str(tmp_path / "wandb")], capture_output=True, text=True
    )
    assert "Would sync 2 run(s)" in dry.stdout + dry.stderr


def test_two_runs_of_one_process_stay_apart(tmp_path):
    first = job("first", tmp_path / "a")
    finish(first, failed=True)
    second = job("second", tmp_path / "b")
    log_rows(second, tmp_path / "b")
    finish(second)
    assert first.id != second.id
    assert history(lines(tmp_path / "a")) == []
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
    log_job(run, Job("off", "gradual", "digits", "cnn", 0, 0.9))
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
        "import sys; sys.modules['wandb'] = None\n"  # what importing a missing package raises
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


def test_a_job_of_texts_shows_their_words(tmp_path):
    what = Job("gradual-0.9-s0", "gradual", "glosses", "bag", 0, 0.9, folder=tmp_path / "rows").save(
        keys=("saliency-0",)
    )
    told = {"labels": np.array([1, 0]), "prediction": np.array([1, 1]), "confidence": np.array([0.75, 0.5])}
    texts = {"words": np.array([["old", "<moss>", ""], ["fall", "", ""]]), "unknown": np.zeros((2, 3), bool)}
    heat = np.array([[[0.5, 2.0, np.nan]], [[1.0, np.nan, np.nan]]])
    names = {"class_names": np.array(["act", "plant"])}
    np.savez(what.folder / "saliency-0.npz", gradient=heat, images=np.ones((2, 1, 1, 3), int), **told, **texts, **names)
    what.record(rows(), "saliency-0", 0.9)
    run = job(what.run, tmp_path / "quick")
    log_job(run, what)
    finish(run)
    (point,) = history(lines(tmp_path / "quick"))
    (folder,) = folders(tmp_path / "quick")
    page = (folder / "files" / point["maps/gradient.path"]).read_text()
    assert "class plant: plant, 75 %" in page
    assert "class act: plant, 50 %" in page
    assert 'rgba(230,159,0,0.25)" title="0.5">old<' in page
    assert 'rgba(230,159,0,1.00)" title="2">&lt;moss&gt;<' in page
