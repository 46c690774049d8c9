"""A sweep end to end, in real processes: what it leaves, what a failure costs, and what a second launch redoes."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lightning_sparse import load_masks
from lightning_sparse.results import records
from offline_runs import told_by

AXES = ["sparsity=dense,gradual_pruning,brain_development", "sparsity.final_sparsity=0.5,0.9,0.99999", "seed=0,1"]


@pytest.fixture(scope="module")
def sweep(command, tiny, tmp_path_factory):
    """Two methods at two levels that fit and one that leaves too few connections, two seeds."""
    cwd = tmp_path_factory.mktemp("sweep")
    done = command("-cn", "quick", *tiny, *AXES, cwd=cwd)
    return cwd / "outputs" / "quick", done


def jobs(folder):
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("*/job.json"))}


def test_jobs_that_fail_leave_the_others_results_a_reason_and_an_exit_code(sweep):
    folder, done = sweep
    assert done.returncode == 1
    stands = jobs(folder)
    assert sorted(job["status"] for job in stands.values()) == ["done"] * 10 + ["failed"] * 4
    for name, job in stands.items():
        if job["status"] == "failed":
            assert job["sparsity_asked"] == 0.99999
            assert "leaves" in job["error"]
            assert "SparsityError" in (folder / name / "traceback.txt").read_text()
    assert "10 jobs done, 4 FAILED: see the report" in done.stdout
    assert done.stdout.rstrip().endswith(f"report: {folder / 'report.html'}")


OF_EVERY_JOB = {
    "clean_accuracy": 1,
    "robust_accuracy": 3 * 3,
    "trust_losses_agree": 3,
    "trust_black_box": 1,
    "corruption_accuracy": 8 * 3,
    "shift_consistency": 1,
    "curvature_hessian_eigenvalue": 1,
    "cost_bits": 1,
    "cost_bytes_entropy": 1,
    "cost_flops": 1,
    "vog_mean": 3,
}


def test_every_number_is_a_row_that_says_what_it_is(sweep):
    folder, _ = sweep
    frame = pd.read_csv(folder / "records.csv")
    counts = frame["metric"].value_counts()
    assert {name: counts[name] for name in OF_EVERY_JOB} == {name: 10 * often for name, often in OF_EVERY_JOB.items()}
    # Of the eight sparse networks with their dense one; of levels seen together; of each network with those of its method.
    assert counts["difference_clean_accuracy"] == 8
    assert counts["difference_robust_accuracy"] == 8 * 3
    assert counts["forgotten_share"] == counts["vog_forgotten_overlap"] == 4
    assert counts["transfer_accuracy"] == 8 * 3 + 2 * 5  # itself, dense and the other level; dense and all four
    assert counts["trust_transfer"] == 10
    robust = frame[frame["metric"] == "robust_accuracy"]
    assert set(robust["attack"]) == {"pgd", "apgd-dlr", "worst"}
    assert robust.loc[robust["attack"] == "worst", "trust"].str.contains("passed|failed: ").all()
    assert set(robust["eps"]) == {0.05, 0.1, 0.2}
    assert (robust["n"] == 60).all()
    assert (robust["low"] <= robust["value"]).all()
    assert (robust["value"] <= robust["high"]).all()
    maps = {"gradient", "integrated_gradients", "smoothgrad"}
    assert set(frame.loc[frame["metric"] == "insertion_deletion_gap", "attribution"]) == maps
    assert set(frame.loc[frame["metric"] == "dense_agreement", "attribution"]) == maps
    total = 64 * 300 + 300 * 100 + 100 * 10
    for row in frame.itertuples():
        assert row.sparsity == round(row.sparsity_asked * total) / total
    worst = robust.pivot_table(index=["run", "eps"], columns="attack", values="value")
    assert (worst["worst"] <= worst.drop(columns="worst").min(axis=1)).all()


def test_the_model_that_was_measured_is_exactly_as_sparse_as_its_rows_say(sweep):
    folder, _ = sweep
    for name, job in jobs(folder).items():
        if job["method"] == "dense" or job["status"] != "done":
            continue
        state = torch.load(folder / name / "model.ckpt", weights_only=True)["state_dict"]
        masks = load_masks(folder / name / "model.ckpt")
        assert masks.total - masks.living == round(job["sparsity_asked"] * masks.total)
        assert all((state[parameter][~mask] == 0).all() for parameter, mask in masks.items())


def test_the_same_images_are_explained_in_every_job_and_agreement_is_with_the_dense_model_of_the_seed(sweep):
    from scipy.stats import spearmanr

    folder, _ = sweep
    done = [name for name, job in jobs(folder).items() if job["status"] == "done"]
    maps = {name: np.load(next((folder / name).glob("saliency-*.npz"))) for name in done}
    first = next(iter(maps.values()))["images"]
    assert all(np.array_equal(saved["images"], first) for saved in maps.values())
    rows = records.read(folder / "records.jsonl")
    wanted = [row for row in rows if (row.metric, row.attribution) == ("dense_agreement", "gradient")]
    row = next(row for row in wanted if row.run.startswith("brain_development-0.9-seed1"))
    dense = next(saved for name, saved in maps.items() if name.startswith("dense-seed1"))
    pairs = zip(maps[row.run]["gradient"], dense["gradient"], strict=True)
    assert row.value == pytest.approx(np.mean([spearmanr(a.ravel(), b.ravel()).statistic for a, b in pairs]), abs=1e-6)


def test_the_report_shows_table_figures_maps_and_holes(sweep):
    folder, _ = sweep
    page = (folder / "report.html").read_text()
    assert "leaves 1 for 3 layers" in page
    assert "95 % Student-t intervals over 2 seeds" in page
    names = {path.stem for path in (folder / "figures").glob("*.png")}
    assert names == {path.stem for path in (folder / "figures").glob("*.svg")}
    assert names >= {"robustness", "security_curves", "differences", "stability", "saliency", "pareto", "vog"}
    assert names >= {"transfer_gradual_pruning", "maps_gradual_pruning_smoothgrad"}
    assert page.count('<img src="data:image/') == len(names)
    assert "May the robust accuracy be trusted?" in page
    table = pd.read_csv(folder / "table.csv")
    assert table.loc[table["sparsity_asked"] == 0.99999, "holes"].str.contains("seed 0 failed").all()


def test_each_job_is_an_offline_wandb_run_and_the_sweep_has_a_summary_run(sweep):
    folder, _ = sweep

    def inspect(run):
        return json.loads(told_by("leet", "inspect", "--summary", "--json", str(run)))

    def run_of(name):
        found = [file for file in folder.glob("wandb/offline-run-*/*.wandb") if name.encode() in file.read_bytes()]
        return inspect(min(found, key=lambda file: file.stat().st_size).parent)  # the summary run names every job

    assert len(list(folder.glob("wandb/offline-run-*"))) == 14 + 1
    name, job = next((name, job) for name, job in jobs(folder).items() if name.startswith("gradual_pruning-0.9-seed0"))
    run = run_of(name)
    assert run["config"]["data.name"] == "digits"
    assert run["config"]["model.optimizer.lr"] == 0.05
    assert {key: run["config"][key] for key in ("run", "method", "seed", "sparsity_asked")} == {
        "run": name, "method": "gradual_pruning", "seed": 0, "sparsity_asked": 0.9
    }  # fmt: skip
    row = next(row for row in records.read(folder / name / "records.jsonl") if row.chart == "robust/worst/eps=0.1")
    text = json.dumps(run)
    assert "robust/worst/eps=0.1" in text
    assert repr(row.value)[:6] in text
    assert job["status"] == "done"
    summary = json.dumps(run_of("quick-summary"))
    assert "quick-summary" in summary
    assert "versus density/robust/worst/eps=0.1" in summary
    assert "figures/robustness" in summary


def test_the_same_command_again_redoes_only_what_failed(command, tiny, tmp_path):
    axes = ["sparsity=dense,gradual_pruning", "sparsity.final_sparsity=0.9,0.99999", "seed=0", "logger=csv"]
    assert command("-cn", "quick", *tiny, *axes, cwd=tmp_path).returncode == 1
    folder = tmp_path / "outputs" / "quick"
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/model.ckpt")}
    rows = {path: path.read_text() for path in folder.glob("*/records.jsonl")}
    again = command("-cn", "quick", *tiny, *axes, "retry_failed=true", cwd=tmp_path)
    assert again.returncode == 1
    assert again.stdout.count("done before") == len(before) == 2
    assert again.stdout.count("FAILED,") == 1
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/model.ckpt")} == before
    assert {path: path.read_text() for path in folder.glob("*/records.jsonl")} == rows


def test_what_was_trained_and_not_measured_is_measured_without_training(command, tiny, tmp_path):
    first = command(*tiny, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    job = next((tmp_path / "outputs" / "runs").iterdir())
    trained = (job / "model.ckpt").stat().st_mtime_ns
    rows = records.read(job / "records.jsonl")
    # As a kill between the two leaves it.
    for file in [job / "records.jsonl", *job.glob("*.npz")]:
        file.unlink()
    stored = json.loads((job / "job.json").read_text())
    (job / "job.json").write_text(json.dumps(stored | {"status": "running"}))
    again = command(*tiny, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert (job / "model.ckpt").stat().st_mtime_ns == trained
    told = {row.chart: repr(row.value) for row in records.read(job / "records.jsonl")}
    assert told == {row.chart: repr(row.value) for row in rows}
    assert {"vog/mean", "cost/bits", "robust/worst/eps=0.1", "shift/consistency"} <= set(told)


def test_other_attacks_measure_again_without_training_again(command, tiny, tmp_path):
    first = command(*tiny, "saliency.methods=[]", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    job = next((tmp_path / "outputs" / "runs").iterdir())
    stored = json.loads((job / "job.json").read_text())
    trained = (job / "model.ckpt").stat().st_mtime_ns
    old = records.read(job / "records.jsonl")
    objective = json.loads((job / "job.json").read_text())["objective"]
    assert 0.1 <= objective <= 1.0
    command(*tiny, "saliency.methods=[]", "attack.eps=[0.15]", cwd=tmp_path)
    new = records.read(job / "records.jsonl")
    assert (job / "model.ckpt").stat().st_mtime_ns == trained
    assert new[: len(old)] == old
    assert json.loads((job / "job.json").read_text())["objective"] == objective
    added = new[len(old) :]
    assert {row.metric.split("_")[0] for row in added} <= {"robust", "trust", "transfer"}
    assert {row.eps for row in added} == {None, 0.15}
    other = json.loads((job / "job.json").read_text())
    assert other["keys"] != stored["keys"]
    back = command(
        *tiny, "saliency.methods=[]", cwd=tmp_path
    )  # what is on disk counts again, and is not measured again
    assert "done before" in back.stdout
    assert json.loads((job / "job.json").read_text())["keys"] == stored["keys"]
    assert records.read(job / "records.jsonl") == new


OWN = """
import torch
from lightning.pytorch import LightningModule

class Small(LightningModule):
    def __init__(self, width, optimizer):
        super().__init__()
        self.save_hyperparameters()  # with an optimizer among them, as many projects do
        self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, width), torch.nn.ReLU())
        self.head = torch.nn.Linear(width, 10)
        self.optimizer = optimizer

    def forward(self, images):
        return self.head(self.net(images))

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return self.optimizer(self.parameters())
"""


def test_a_module_of_the_users_own(command, tiny, tmp_path):
    (tmp_path / "mine.py").write_text(OWN)
    optimizer = "+model.optimizer={_target_: torch.optim.Adam, _partial_: true, lr: 0.01}"
    own = ["model=own", "model._target_=mine.Small", "+model.width=32", optimizer]
    done = command(*tiny[1:], *own, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    job = next((tmp_path / "outputs" / "runs").iterdir())
    stored = json.loads((job / "job.json").read_text())
    assert (stored["model"], stored["status"], stored["objective"]) == ("Small", "done", None)
    total = 64 * 32 + 32 * 10
    rows = records.read(job / "records.jsonl")
    assert {row.sparsity for row in rows} == {round(0.9 * total) / total}


@pytest.mark.parametrize("later", [False, True])
def test_a_model_without_logits_is_refused_before_training_or_its_training_is_kept(command, tiny, tmp_path, later):
    spoken = OWN.replace("return self.head(self.net(images))", "return {'scores': self.head(self.net(images))}")
    spoken = spoken.replace("(self(batch[0]), batch[1])", "(self(batch[0])['scores'], batch[1])")
    spoken += (
        "\n    def validation_step(self, batch, batch_idx):"
        "\n        self.log('val_accuracy', (self(batch[0])['scores'].argmax(1) == batch[1]).float().mean())\n"
    )
    if later:  # it can be called only when it has been set up
        spoken = spoken.replace("        self.head =", "    def setup(self, stage):\n        self.head =")
        spoken = spoken.replace("self.optimizer = optimizer\n", "pass\n").replace("(width, 10)", "(32, 10)")
        spoken = spoken.replace("self.optimizer(self", "self.hparams.optimizer(self")
    (tmp_path / "mine.py").write_text(spoken)
    optimizer = "+model.optimizer={_target_: torch.optim.Adam, _partial_: true, lr: 0.01}"
    own = ["model=own", "model._target_=mine.Small", "+model.width=32", optimizer]
    done = command(*tiny[1:], *own, "vog.images=0", cwd=tmp_path)
    assert done.returncode == 2
    assert "a dict of 'scores' " in done.stderr
    job = next((tmp_path / "outputs" / "runs").iterdir())
    stored = json.loads((job / "job.json").read_text())
    assert stored["status"] == "failed"
    assert (job / "model.ckpt").exists() == later
    if later:
        assert 0.0 <= stored["objective"] <= 1.0  # what training found is kept


def test_a_folder_of_images_is_part_of_what_trains_a_job(command, tiny, tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for root in ("one", "two"):
        for split in ("train", "test"):
            for name in ("dark", "light"):
                (tmp_path / root / split / name).mkdir(parents=True)
                for i in range(24):
                    picture = rng.integers(0, 128, (8, 8, 3), dtype=np.uint8) + (128 if name == "light" else 0)
                    Image.fromarray(picture.astype(np.uint8)).save(tmp_path / root / split / name / f"{i}.png")
    shape = ["data=folder", "data.shape=[3,8,8]", "data.classes=2", "attack.images=20"]
    for root in ("one", "two"):
        done = command(*tiny, *shape, f"data.root={tmp_path / root}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "done before" not in done.stdout
    assert len(list((tmp_path / "outputs" / "runs").iterdir())) == 2
    names = {row.attack for path in tmp_path.rglob("records.jsonl") for row in records.read(path)}
    assert "pgd-margin" in names  # DLR is not defined for two classes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-cn", "quik"], "there is no sweep named 'quik': did you mean 'quick'?"),
        (["sparsity.final_sparsity=1.5"], "final_sparsity=1.5 is not a share"),
        (["sparsity.begin=0.8", "sparsity.end=0.5"], "begin=0.8 is after end=0.5"),
        (["sparsity.criterion=magnitud"], "did you mean 'magnitude'"),
        (["sparsity.include=[nothing]"], "matches no parameter"),
        (["data=mnist", "data.root=/no/such/folder"], "data.root=/path/to/the/folder"),
        (["attack.attacks=[pgdd]"], "did you mean 'pgd'"),
        (["attack.eps=[8]"], "write 8 / 255"),
        (["attack.images=5"], "ask for at least 10"),
        (["saliency.methods=[gradcam]"], "did you mean 'grad_cam'? (allowed: grad_cam, gradient"),
        (["sparsity.final_sparsity=ninety"], "final_sparsity='ninety' is not a number"),
        (["seed=abc"], "seed='abc' is not an integer"),
    ],
)
def test_bad_input_ends_before_training_with_what_to_write(arguments, message, command, tmp_path):
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("model.ckpt"))


@pytest.mark.parametrize(("mode", "code"), [(["-m", "seed=0,1"], 1), ([], 2)])
def test_several_devices_by_script_are_refused(mode, code, command, tiny, tmp_path):
    ddp = ["trainer.accelerator=cpu", "trainer.devices=2", "+trainer.strategy=ddp"]
    done = command(*mode, *tiny, *ddp, cwd=tmp_path)
    assert done.returncode == code
    assert "trainer.strategy=ddp_spawn, or trainer.devices=1" in done.stderr + done.stdout
    assert not list(tmp_path.rglob("model.ckpt"))


@pytest.mark.parametrize(
    "networks", ["lenet_300_100", pytest.param("lenet_300_100,small_cnn", marks=pytest.mark.long)], ids=["one", "both"]
)
def test_the_study_of_every_method_runs(command, tmp_path, networks):
    small = ["data=digits", "epochs=1", f"model={networks}", "sparsity.final_sparsity=0.8", "seed=0"]
    done = command("-cn", "methods", *small, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    stands = jobs(tmp_path / "outputs" / "methods")
    methods = {path.stem for path in (Path(__file__).parents[2] / "conf" / "sparsity").glob("*.yaml")}
    others = {
        "dense_sparse_dense",
        "iterative_pruning",
        "predict_weights",
        "small_dense",
    }  # one ends dense, the others are not of the study
    assert {job["method"] for job in stands.values()} == methods - others
    assert {job["status"] for job in stands.values()} == {"done"}
    assert len(stands) == len(networks.split(",")) * len(methods - others)
