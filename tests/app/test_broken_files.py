"""A sweep whose files were broken is launched again: what cannot be read is put aside, named, and made again."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest
import torch

from lightning_sparse.app.comparing.compare_jobs import update_comparisons
from lightning_sparse.results import records
from lightning_sparse.results.jobs import read_jobs
from lightning_sparse.tables.collect import collect
from lightning_sparse.tables.gaps import warnings

SWEEP = [
    "--multirun", "sparsity=dense,gradual_pruning", "model=lenet_300_100", "trainer.max_epochs=2", "logger=none",
    "attack.images=40", "attack.steps=1", "attack.eps=[0.1,0.2]", "saliency.images=20", "saliency.methods=[gradient]",
    "saliency.max_sensitivity=[]", "saliency.measures=[gini]", "stability=none", "transfer.images=16", "cost=none",
    "vog.images=20",
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    done = command(*SWEEP, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "cannot be read" not in done.stderr
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "again", ignore=shutil.ignore_patterns("figures", "report.html"))
    return tmp_path / "again"


def rows(folder):
    return Counter(
        (row.run, row.chart, row.metric, repr(row.value), row.n, row.key)
        for row in records.read(folder / "records.jsonl")
    )


def one(folder, pattern):
    (found,) = folder.glob(pattern)
    return found


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def append(path, content):
    path.write_bytes(path.read_bytes() + content)


def break_many(runs):
    """Break files of every kind, and return the names of those that a launch puts aside."""
    dense, sparse = sorted(path.parent for path in runs.glob("*/job.json"))
    lines = (dense / "records.jsonl").read_bytes().splitlines(keepends=True)
    lines[0] = lines[0][:30] + b"\xff" + lines[0][31:]
    at = next(at for at, line in enumerate(lines) if b'"gini"' in line)
    without = json.loads(lines[at])
    del without["value"]
    lines[at] = json.dumps(without).encode() + b"\n"
    (dense / "records.jsonl").write_bytes(b"5\n{}\n" + b"".join(lines) + b"null\n[]\n")
    (dense / "job.json").write_text('{"run": "another", "seed": [')
    half(one(dense, "transfer*.npz"))
    half(sparse / "model.ckpt")
    shutil.copy(one(dense, "clean*.npz"), sparse / "training.ckpt")
    (sparse / "records.jsonl").write_bytes(
        (sparse / "records.jsonl").read_bytes().replace(b'"value": 0', b'"value": "x"', 1)
    )
    clean, saliency = one(sparse, "clean*.npz"), one(sparse, "saliency*.npz")
    clean.write_text("hello")
    np.savez(saliency, images=np.array([None]), labels=np.zeros(3))
    append(runs / "launches.jsonl", b'5\nnull\n{"event": 1}\n\xff\xfe\n')
    append(runs / "records.jsonl", b'{"metric": 3}\n')
    one(runs, "forgotten/*.npz").write_bytes(b"<html>")
    return {
        dense / "records.jsonl", dense / "job.json", one(dense, "transfer*.npz"), sparse / "model.ckpt",
        sparse / "training.ckpt", sparse / "records.jsonl", clean, saliency,
    }  # fmt: skip


def test_a_broken_sweep_is_made_again_as_it_was(command, whole, copy):
    original, runs = whole / "outputs/runs", copy / "outputs/runs"
    broken = {path: path.read_bytes() for path in break_many(runs)}
    done = command(*SWEEP, cwd=copy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for path, content in broken.items():
        assert path.with_name(f"{path.name}.unreadable").read_bytes() == content  # nothing is deleted
        assert f"{path.name} in {path.parent.name} cannot be read (" in done.stderr
    assert "what it lacks is measured again" in done.stderr
    assert "the training starts again" in done.stderr
    for job in original.glob("*/job.json"):
        again = runs / job.parent.name
        assert rows(job.parent) == rows(again)
        weights = [torch.load(side / "model.ckpt", weights_only=False)["state_dict"] for side in (job.parent, again)]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
        stored = [json.loads(path.read_text()) for path in (job, again / "job.json")]
        assert stored[0]["objective"] == stored[1]["objective"]
        assert stored[1]["status"] == "done"
        for file in job.parent.glob("*.npz"):
            with np.load(file) as first, np.load(again / file.name) as second:
                assert all(
                    np.array_equal(first[name], second[name], equal_nan=first[name].dtype.kind == "f") for name in first
                )
    assert rows(original) == rows(runs)
    assert [path.name for path in original.glob("forgotten/*")] == [path.name for path in runs.glob("forgotten/*")]
    after = {path: path.stat().st_mtime_ns for path in runs.glob("*/*.npz")}
    third = command(*SWEEP, cwd=copy)  # everything is there: nothing is said or done
    assert third.returncode == 0
    assert "unreadable" not in third.stderr
    assert third.stdout.count("done before") == 2
    assert after == {path: path.stat().st_mtime_ns for path in runs.glob("*/*.npz")}


def test_a_report_names_what_it_leaves_out(copy):
    runs = copy / "outputs/runs"
    broken = break_many(runs)
    read = read_jobs(runs)
    update_comparisons(runs, read[0])
    said = warnings(collect(runs, read))
    for path in broken - {runs / path.parent.name / "job.json" for path in broken}:
        assert any(f"{path.name} in {path.parent.name} cannot be read (" in sentence for sentence in said), path
    assert any("launches.jsonl" in sentence for sentence in said)
    assert sorted(job.status for job in read[0]) == ["done", "unreadable"]


@pytest.mark.parametrize("name", ["records.jsonl", "job.json", "model.ckpt", "clean*.npz"])
def test_a_folder_in_the_place_of_a_file(copy, name):
    runs = copy / "outputs/runs"
    whole = {job.run: rows(job.folder) for job in read_jobs(runs)[0]}
    path = next(runs.glob(f"gradual*/{name}"))
    path.unlink()
    path.mkdir()
    read = read_jobs(runs)
    update_comparisons(runs, read[0])
    assert any(path.name in said for said in [*collect(runs, read).unreadable, *(job.error for job in read[0])])
    assert {run: rows(runs / run) for run in whole if run.startswith("dense")}.items() <= whole.items()
