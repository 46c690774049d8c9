"""A sweep on many cores and over several devices, in real processes."""

import json
import os
import sys
from collections import Counter

import pytest
import torch

from lightning_sparse import load_masks
from lightning_sparse.results import records

PROBE = """
import torch
from lightning.pytorch import Callback

class Threads(Callback):
    def on_fit_start(self, trainer, pl_module):
        print(f"{torch.get_num_threads()} threads", flush=True)
        torch.set_num_threads(1)  # two workers on two cores
"""


def jobs(folder):
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("*/job.json"))}


@pytest.fixture(scope="module")
def sweep(command, tiny, tmp_path_factory):
    """Four jobs for two workers: two of them are one dense network, and one fails."""
    cwd = tmp_path_factory.mktemp("joblib")
    (cwd / "probe.py").write_text(PROBE)
    axes = ["sparsity=dense,gradual_pruning", "sparsity.final_sparsity=0.5,0.99999", "seed=0"]
    axes.append("trainer.enable_model_summary=false,true")  # not in a job's name: two workers meet each job
    cores = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "+callbacks.probe._target_=probe.Threads"]
    # More threads than joblib would give two workers on two cores: a number of the user's own wins.
    program = ["env", "OMP_NUM_THREADS=2", sys.executable, "-m", "lightning_sparse"]
    little = ["attack=none", "stability=none", "transfer=none", "vog=none", "saliency.methods=[gradient]"]
    tiny = [argument for argument in tiny if argument.startswith(("model", "trainer", "saliency", "cost"))]
    done = command("-cn", "quick", *tiny, *little, *axes, *cores, cwd=cwd, program=program)
    return cwd / "outputs" / "quick", done


def test_two_workers_finish_a_sweep_and_one_failure_costs_only_itself(sweep):
    folder, done = sweep
    assert done.returncode == 1, done.stdout + done.stderr
    stands = {name.partition("-seed")[0]: job["status"] for name, job in jobs(folder).items()}
    assert stands == {"dense": "done", "gradual_pruning-0.5": "done", "gradual_pruning-0.99999": "failed"}
    page = (folder / "report.html").read_text()
    assert "leaves 1 for 3 layers" in page
    rows = records.read(folder / "records.jsonl")
    assert {row.method for row in rows if row.metric == "dense_agreement"} == {"gradual_pruning"}


def test_what_two_workers_come_to_is_trained_once(sweep):
    folder, _ = sweep
    events = [json.loads(line) for line in (folder / "launches.jsonl").read_text().splitlines()]
    assert len({event["launch"] for event in events}) == 1  # the workers know whose they are
    ends = [event["how"] for event in events if event["event"] == "done" and event["run"].startswith("dense")]
    assert sorted(ends) == ["skipped", "trained"]


def test_a_workers_threads_are_as_many_as_the_user_says(sweep):
    _, done = sweep
    assert f"{min(2, os.cpu_count())} threads" in done.stdout


def test_jobs_of_one_worker_are_runs_of_their_own_in_wandb(sweep):
    folder, _ = sweep
    files = {file: file.read_bytes() for file in folder.glob("wandb/offline-run-*/*.wandb")}
    told = {file: [name for name in jobs(folder) if name.encode() in content] for file, content in files.items()}
    runs = {names[0]: files[file] for file, names in told.items() if len(names) == 1}
    counted = Counter(names[0] for names in told.values() if len(names) == 1)
    # What was refused is tried again by the second job of the same name.
    assert counted == {name: 2 if job["status"] == "failed" else 1 for name, job in jobs(folder).items()}
    for name, job in jobs(folder).items():
        if job["status"] == "done":
            row = next(row for row in records.read(folder / name / "records.jsonl") if row.chart == "cost/bits")
            assert repr(row.value)[:6].encode() in runs[name]


def test_a_sweep_over_jobs_of_two_devices_each(command, tiny, tmp_path):
    nothing = [f"{group}=none" for group in ("attack", "saliency", "stability", "transfer", "cost", "vog", "logger")]
    tiny = [argument for argument in tiny if argument.startswith("model")]
    two = ["trainer.accelerator=cpu", "trainer.devices=2", "+trainer.strategy=ddp_spawn", "trainer.max_epochs=1"]
    done = command("--multirun", *tiny, *nothing, *two, "seed=0", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "outputs" / "runs"
    (name, job) = next(iter(jobs(folder).items()))
    assert job["status"] == "done"
    assert 0.0 < job["objective"] <= 1.0
    content = torch.load(folder / name / "model.ckpt", weights_only=True)
    assert content["global_step"] == 11  # of 22 batches, each rank sees half
    masks = load_masks(folder / name / "model.ckpt")
    assert masks.total - masks.living == round(0.9 * masks.total)
    assert all((content["state_dict"][parameter][~mask] == 0).all() for parameter, mask in masks.items())
    rows = records.read(folder / name / "records.jsonl")
    assert rows[0].metric == "clean_accuracy"
    assert (folder / "report.html").exists()
