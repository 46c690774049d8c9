"""A sweep on a real Slurm: its jobs run there, one is cancelled, and the same command finishes it."""

import json
import subprocess
import sys

import pytest

from lightning_sparse.results import records
from slurm.cluster import one_node, told, until

pytestmark = pytest.mark.slurm

SWEEP = [
    "-cn=quick",
    "hydra/launcher=submitit_slurm",
    "hydra.launcher.partition=tests",
    "hydra.launcher.cpus_per_task=1",
    'hydra.launcher.setup=["export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK"]',
    "logger=none",
    "sparsity=gradual_pruning",
    "sparsity.final_sparsity=0.5,0.9",
    "seed=0,1",
    "model=lenet_300_100",
    "trainer.max_epochs=100",
    "attack.images=60",
    "attack.steps=3",
    "saliency.images=20",
    "stability=none",
    "transfer.images=16",
    "cost.images=100",
    "vog.images=20",
]
COMMAND = [sys.executable, "-m", "lightning_sparse", *SWEEP]


@pytest.fixture(scope="module")
def cluster():
    with one_node() as folder:
        yield folder


def jobs(folder):
    """The jobs in the order in which they were asked for."""
    names = [("0.5", 0), ("0.5", 1), ("0.9", 0), ("0.9", 1)]
    found = {path.parent.name: path.parent for path in folder.glob("*/job.json")}
    return [
        path
        for level, seed in names
        for name, path in found.items()
        if name.startswith(f"gradual_pruning-{level}-seed{seed}-")
    ]


def status(job):
    return json.loads((job / "job.json").read_text())["status"]


def ended(folder):
    """What became of each job, by launch."""
    events = [json.loads(line) for line in (folder / "launches.jsonl").read_text().splitlines()]
    launches = [event["launch"] for event in events if event["event"] == "launched"]
    return [
        {e["number"]: e["how"] for e in events if e["launch"] == launch and e["event"] == "done"} for launch in launches
    ]


def test_a_job_that_is_cancelled_is_finished_by_the_same_command(cluster, tmp_path):
    folder = tmp_path / "outputs" / "quick"
    first = subprocess.Popen(COMMAND, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    trained = until(lambda: list(folder.glob("gradual_pruning-0.5-seed0-*/training.ckpt")), 120, "a first epoch")
    told("scancel", f"{told('squeue', '--noheader', '--format=%F').split()[0]}_0")
    output, _ = first.communicate(timeout=500)
    assert first.returncode == 1, output
    assert "CANCELLED" in output
    assert (folder / "report.html").exists()
    # The launch ends with the first job that is lost; later jobs go on in Slurm.
    until(lambda: not told("squeue", "--noheader"), 300, "the end of the other jobs")
    cancelled, *others = jobs(folder)
    assert status(cancelled) == "running"
    assert trained == [cancelled / "training.ckpt"]
    assert trained[0].exists()
    assert not (cancelled / "model.ckpt").exists()
    assert [status(job) for job in others] == ["done"] * 3
    rows = {job: (job / "records.jsonl").read_text() for job in others}

    second = subprocess.run(COMMAND, cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "4 jobs done\n" in second.stdout
    assert [status(job) for job in jobs(folder)] == ["done"] * 4
    assert ended(folder) == [dict.fromkeys((1, 2, 3), "trained"), {0: "resumed", **dict.fromkeys((1, 2, 3), "skipped")}]
    assert {job: (job / "records.jsonl").read_text() for job in others} == rows
    charts = [[row.chart for row in records.read(job / "records.jsonl")] for job in jobs(folder)]
    assert all(names == charts[0] and len(set(names)) == len(names) for names in charts)
