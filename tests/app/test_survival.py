"""After a kill, a full disk, a failure or a second launch, nothing measured is lost and nothing is done twice."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

import warm_process
from lightning_sparse.results import records
from lightning_sparse.results.launches import counts, not_started

BARE = ["attack=none", "saliency=none", "stability=none", "transfer=none", "cost=none", "vog=none", "logger=none"]
SMALL = ["model=lenet_300_100", "attack.images=60", "attack.steps=3", "attack.eps=[0.1]", "saliency.images=20"]
SMALL += ["saliency.methods=[gradient]", "stability=none", "transfer=none", "cost=none", "vog.images=20"]
KILLED = [
    *SMALL,
    "sparsity=brain_development,dense",
    "adversarial=fgsm",
    "adversarial.eps=0.05",
    "trainer.max_epochs=30",
]


def stored(folder):
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("*/job.json"))}


def rows(job):
    """Every number of a job, as often as it was written."""
    return Counter((row.run, row.chart, repr(row.value), row.n, row.key) for row in records.read(job / "records.jsonl"))


SOME = ["a later epoch is saved", "the model is being saved", "arrays are being saved"]


@pytest.mark.parametrize("moments", [";".join(SOME), pytest.param("all", marks=pytest.mark.long)], ids=["some", "all"])
def test_killed_at_many_moments_it_is_the_sweep_that_was_never_killed(command, tmp_path, moments):
    script = [sys.executable, str(Path(__file__).with_name("kill_sweep.py")), moments]
    done = command(*KILLED, program=script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    ends = json.loads(done.stdout.splitlines()[-1])
    assert ends["whole"] == ends["left alone"] == 0
    killed = [moment for moment, status in ends.items() if status == signal.SIGKILL]
    # A moment may come and go between two looks at the folder; those of SOME stay, or are looked for from inside.
    assert len(killed) >= (len(SOME) if moments != "all" else len(ends) - 4), ends
    whole, again = (tmp_path / name / "outputs" / "runs" for name in ("whole", "killed"))
    jobs = stored(whole)
    assert len(jobs) == 2
    assert {job["status"] for job in stored(again).values()} == {"done"}
    for name, job in jobs.items():
        weights = [torch.load(side / name / "model.ckpt", weights_only=False)["state_dict"] for side in (whole, again)]
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
        assert rows(whole / name) == rows(again / name)  # nothing is lost, and nothing is measured twice
        assert stored(again)[name]["objective"] == job["objective"]
        assert not list((again / name).glob("training.ckpt*"))
    assert rows(whole) == rows(again)
    assert {path.name for path in whole.glob("figures/*")} == {path.name for path in again.glob("figures/*")}
    found = counts(again)
    assert found["launches"] == len(ends) - 1
    assert found["resumed"] or "resumed" in (again / "launches.jsonl").read_text()
    assert found["cut"] + found["trained"] + found["resumed"] + found["measured"] >= 2
    assert not_started(again) == []
    pages = [(side / "report.html").stat().st_size for side in (whole, again)]
    assert pages[0] == pytest.approx(pages[1], rel=0.05)


OUT_OF_MEMORY = """
import torch
from torch import nn
from torch.nn import functional as F
from lightning.pytorch import LightningModule

class Greedy(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)
    def forward(self, x):
        return self.layer(x.flatten(1))
    def training_step(self, batch, _):
        if torch.initial_seed() == 0:
            torch.empty(10**15)
        return F.cross_entropy(self(batch[0]), batch[1])
    def validation_step(self, batch, _):
        self.log("val_accuracy", (self(batch[0]).argmax(1) == batch[1]).float().mean())
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
"""


def test_a_job_out_of_memory_costs_itself_and_is_tried_again_only_when_asked(command, tmp_path):
    (tmp_path / "greedy.py").write_text(OUT_OF_MEMORY)
    own = ["model=own", "model._target_=greedy.Greedy", "seed=0,1", "trainer.max_epochs=1", *BARE]
    own = ["--multirun", *own, "sparsity=gradual_pruning"]
    first = command(*own, cwd=tmp_path)
    assert first.returncode == 1
    folder = tmp_path / "outputs" / "runs"
    failed, done = (
        next(n for n, j in stored(folder).items() if j["status"] == status) for status in ("failed", "done")
    )
    assert "can't allocate memory" in stored(folder)[failed]["error"]
    assert "torch.empty(10**15)" in (folder / failed / "traceback.txt").read_text()
    assert f"[1/2] {failed}: FAILED" in first.stdout
    assert f"[2/2] {done}: clean" in first.stdout
    assert "can&#39;t allocate memory" in (folder / "report.html").read_text()
    again = command(*own, cwd=tmp_path)
    assert again.returncode == 1
    assert "in an earlier launch (retry_failed=true tries it again)" in again.stdout
    assert counts(folder) == {
        "launches": 2, "trained": 1, "resumed": 0, "measured": 0, "skipped": 1, "failed": 1, "failed_before": 1, "cut": 0
    }  # fmt: skip
    (tmp_path / "greedy.py").write_text(OUT_OF_MEMORY.replace("10**15", "10"))
    repaired = command(*own, "retry_failed=true", cwd=tmp_path)
    assert repaired.returncode == 0, repaired.stderr
    assert {job["status"] for job in stored(folder).values()} == {"done"}
    assert counts(folder)["trained"] == 2


def test_a_full_disk_costs_what_did_not_fit(command, tmp_path):
    """No file may grow beyond so many bytes: the system then raises the error of a full disk."""
    arguments = ["--multirun", "model=lenet_300_100", "trainer.max_epochs=2", "sparsity.final_sparsity=0.5,0.9", *BARE]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def launch(limit):
        def small_disk():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

        return subprocess.run(
            [sys.executable, "-m", "lightning_sparse", *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, preexec_fn=small_disk, check=False,
        )  # fmt: skip

    folder = tmp_path / "outputs" / "runs"
    full = launch(200_000)  # the jobs' own files fit; the checkpoints do not
    assert full.returncode == 1
    assert [job["status"] for job in stored(folder).values()] == ["failed", "failed"]
    assert not list(folder.glob("*/*.ckpt"))
    enough = command(*arguments, "retry_failed=true", cwd=tmp_path)
    assert enough.returncode == 0, enough.stderr
    before = {path: path.read_bytes() for path in folder.glob("*/records.jsonl")}
    tight = launch(300)  # nothing fits: not even the log of what is skipped grows
    assert {path: path.read_bytes() for path in folder.glob("*/records.jsonl")} == before
    assert {job["status"] for job in stored(folder).values()} == {"done"}, tight.stdout
    assert (folder / "report.html").read_text().rstrip().endswith("</html>")


def test_two_launches_at_once_share_the_work(tmp_path):
    arguments = ["--multirun", *BARE, "model=lenet_300_100", "seed=0,1,2", "sparsity=dense,gradual_pruning"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    both = warm_process.run(
        "lightning_sparse", *arguments, "trainer.max_epochs=3", cwd=tmp_path, env=environment, each=[{}, {}]
    )
    assert both.returncode == 0, both.stderr
    folder = tmp_path / "outputs" / "runs"
    found = counts(folder)
    assert (found["launches"], found["trained"], found["skipped"], found["cut"]) == (2, 6, 6, 0)
    assert all(max(rows(folder / name).values()) == 1 for name in stored(folder))
    assert max(rows(folder).values()) == 1
    assert both.stdout.count(f"report: {folder / 'report.html'}") == 2


def test_a_terminated_launch_does_not_look_like_success(tmp_path):
    """A scheduler's SIGTERM at a time limit: Lightning turns it into an exit without a code."""
    arguments = [sys.executable, "-m", "lightning_sparse", "--multirun", "model=lenet_300_100", *BARE, "seed=0,1"]
    launch = subprocess.Popen(
        [*arguments, "trainer.max_epochs=1000"], cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    folder = tmp_path / "outputs" / "runs"
    while not list(folder.glob("*/training.ckpt")):
        assert launch.poll() is None
        time.sleep(0.05)
    launch.terminate()
    assert launch.wait() == 143
    assert [job["status"] for job in stored(folder).values()] == ["running"]
    assert "not started" in (folder / "report.html").read_text()


def test_what_was_refused_says_why_and_is_tried_again(command, tmp_path):
    arguments = ["--multirun", "data=mnist", "data.root=/nonexistent", "seed=0,1", *BARE]
    for _ in range(2):
        done = command(*arguments, cwd=tmp_path)
        assert done.returncode == 1
        assert done.stdout.count("FAILED, SparsityError: data folder root='/nonexistent' does not exist") == 2
