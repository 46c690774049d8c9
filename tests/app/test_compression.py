"""Compression in a sweep: what is measured is decoded from bytes, and levels are of bits."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_module
from torch import nn

from lightning_sparse import SparsityError
from lightning_sparse.app import hydra_parts
from lightning_sparse.app.build import build_model, masks_of_zeros, stored_model
from lightning_sparse.app.compression import steps_of
from lightning_sparse.app.export_command import main as export_main
from lightning_sparse.app.small_dense import width_of_bits
from lightning_sparse.compress import Code, Prune, Quantise, compress, decompress
from lightning_sparse.compress.bits import check_reachable
from lightning_sparse.compress.draft import Draft
from lightning_sparse.data import ImageData
from lightning_sparse.errors import OutOfReachError
from lightning_sparse.models import lenet_300_100
from lightning_sparse.results import records
from lightning_sparse.results.jobs import read_job
from lightning_sparse.results.launches import counts

ROOT = Path(__file__).parents[2]
BARE = ["saliency=none", "stability=none", "transfer=none", "cost=none", "logger=none", "attack=none"]
QUICK = [*BARE, "trainer.max_epochs=1", "compression.epochs=1", "sparsity=dense"]
NUMBERS = 64 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10 + 2  # with the mean and the std of the images


def composed(*overrides, name="config"):
    with initialize_config_module("lightning_sparse.conf", version_base="1.3"):
        return compose(name, overrides=list(overrides), return_hydra_config=True)


def run(*overrides):
    config = composed(*overrides)
    return hydra_parts.job_from(config, config.hydra.runtime.choices)


def test_what_is_compressed_is_in_a_name_and_what_is_not_changes_none():
    share = run("compression=share", "bits=0.05")
    assert share.run.startswith("share-0.05-seed0-")
    assert (share.method, share.sparsity_asked, share.compressed) == ("share", 0.95, True)
    assert run("compression=half").run.startswith("half-seed0-")
    assert run("compression=half").sparsity_asked != run("compression=half").sparsity_asked  # what it achieves
    assert run("compression=share", "bits=0.05", "label=mine").method == "share-mine"
    others = [
        ["bits=0.1"],
        ["bits=0.05", "compression.epochs=6"],
        ["bits=0.05", "compression.steps.0.codebook_of=network"],
        ["bits=0.05", "trainer.max_epochs=3"],
        ["compression.steps.0.bits=3"],
    ]
    names = {share.run, *(run("compression=share", *other).run for other in others)}
    assert len(names) == 1 + len(others)
    elsewhere = "compression.steps.0._target_=lightning_sparse.compress.steps.share.Share"
    assert run("compression=share", "bits=0.05", elsewhere).run == share.run
    assert run("compression=none", "sparsity=dense", "seed=3").run == "dense-seed3-82ebb90f"


def test_the_named_sweep_has_dense_and_half_once_a_seed():
    for name, sizes in (("six", 5), ("six_mnist", 3)):
        asked = hydra_parts._asked(composed(name=name))
        assert len(asked) == 5 + 5 + 7 * sizes * 5
        assert {part for job in asked for part in job if "compression=none" in job} == {
            "compression=none", *(f"seed={seed}" for seed in range(5))
        }  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["bits=0.05"], r"bits=0\.05 is the size .* write compression=share, or bits=null"),
        (["compression=share", "bits=5"], r"bits=5 is not a share in \[0, 1\): write 0\.05 for 5 percent"),
        (["compression=share", "bits=0"], r"bits=0 is no size: write bits=0\.05"),
        (["compression=share", "sparsity=rigl", "bits=0.05"], r"begins with a dense one: write sparsity=dense, and"),
        (["compression=share"], r"leaves entries open: write entries=\.\.\., or bits=0\.05"),
        (["compression=half", "bits=0.05"], r"bits=0\.05 finds the argument of one step, and no step leaves one open"),
        (["compression=share", "bits=0.05", "compression.steps.0.bits=3"], r"and no step leaves one open"),
        (["compression=share", "compression.steps.0.bits=9"], r"compression\.steps cannot be built: bits=9 is not"),
        (["compression=share", "+compression.steps.0.bit=9"], r"compression\.steps\.0\.bit=9 is no argument of"),
        (["compression=share", "bits=0.05", "+compression.epoch=1"], r"did you mean compression\.epochs\?"),
        (["compression=share", "bits=0.05", "compression.epochs=-1"], r"compression\.epochs=-1 is not an integer"),
        (["compression=narrow"], r"compression=narrow finds its width by the bits: write bits=0\.05"),
        (["compression=share", "bits=0.05", "adversarial=pgd"], r"write compression\.epochs=0, or adversarial=none"),
        (["compression=share", "bits=0.05", "compression.steps=3"], r"compression\.steps=3 is not a list of steps"),
    ],
)
def test_what_does_not_go_together_is_refused_with_what_to_write(overrides, says):
    with pytest.raises(SparsityError, match=says):
        hydra_parts.check_config(composed(*overrides), overrides)


def test_every_choice_builds_its_steps():
    for path in sorted((ROOT / "conf" / "compression").glob("*.yaml")):
        if path.stem != "none":
            bits = [] if path.stem == "half" else ["bits=0.05"]
            config = composed(f"compression={path.stem}", *bits)
            hydra_parts.check_config(config)
            assert isinstance(steps_of(config, narrow=lambda width: nn.Identity())[-1], Code)


def test_the_width_for_some_bits_is_the_largest_that_fits():
    make = partial(lenet_300_100, (1, 8, 8), 10)
    width = width_of_bits(make, 0.05)
    torch.manual_seed(0)

    def share(width):
        return len(compress(make(width), [Code()]).content) * 8 / (32 * (NUMBERS - 2))

    assert 0.045 < share(width) <= 0.0505
    assert share(1.1 * width) > 0.0505
    assert width_of_bits(make, 0.05) == width
    with pytest.raises(OutOfReachError, match=r"bits=0\.0001 cannot be reached by Narrow"):
        width_of_bits(make, 0.0001)
    with pytest.raises(SparsityError, match=r"compression=narrow needs a network that can be made narrower"):
        width_of_bits(lambda width: nn.Linear(4, 2, width=width), 0.05)


def test_what_first_weights_show_to_be_out_of_reach_is_known_before_training():
    net = lenet_300_100((1, 8, 8), 10)
    numbers = NUMBERS - 2
    with pytest.raises(
        OutOfReachError, match=r"bits=0\.02 cannot be reached by Quantise: the smallest found takes 0\.03"
    ):
        check_reachable(0.02, [Quantise(), Code()], Draft(net), numbers)
    check_reachable(0.04, [Quantise(), Code()], Draft(net), numbers)  # a bit a weight is 1/32
    check_reachable(0.02, [Prune(0.9), Quantise(), Code()], Draft(net), numbers)
    with pytest.raises(OutOfReachError, match="reached by Prune"):
        check_reachable(0.003, [Prune(), Code()], Draft(net), numbers)  # the biases alone take 410 / 2 of 50,610


@pytest.fixture(scope="module")
def sweep(command, tmp_path_factory):
    """Five networks, of which one cannot be had."""
    folder = tmp_path_factory.mktemp("sweep")
    arguments = ["--multirun", *QUICK, "compression=none,half,prune,quantise", "bits=0.1,0.02", "seed=0"]
    done = command(*arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, arguments, done


def jobs_of(folder):
    jobs = [read_job(path) for path in sorted((folder / "outputs" / "runs").glob("*/job.json"))]
    return {job.run.partition("-seed")[0]: job for job in jobs}


def test_a_sweep_measures_what_is_decoded(sweep):
    folder, _, done = sweep
    jobs = jobs_of(folder)
    assert {name: job.status for name, job in jobs.items()} == {
        "dense": "done", "half": "done", "prune-0.1": "done", "prune-0.02": "done",
        "quantise-0.1": "done", "quantise-0.02": "out of reach",
    }  # fmt: skip
    assert "5 jobs done, 1 out of reach of their technique: see the report" in done.stdout
    assert not jobs["quantise-0.02"].checkpoint.exists()  # known before the training
    config = composed("data=digits").data
    data = ImageData(**{name: value for name, value in config.items() if name != "_target_"})
    images, labels = data.split("test")
    for name in ("half", "prune-0.1", "prune-0.02", "quantise-0.1"):
        job = jobs[name]
        rows = {row.metric: row for row in job.current_rows()}
        assert rows["cost_coded_bits"].value == 8 * job.content.stat().st_size / (32 * NUMBERS)
        parts = [row.value for metric, row in rows.items() if metric.startswith("cost_coded_bits_")]
        assert sum(parts) == pytest.approx(rows["cost_coded_bits"].value)
        assert len(parts) == 6
        # The ideal code takes 16 bits for a number that has no levels; real ones find order in their exponents.
        assert 0.8 < rows["cost_coded_ideal"].value / rows["cost_coded_bits"].value < 1.6
        assert rows["clean_accuracy"].sparsity == 1 - rows["cost_coded_bits"].value
        decoded = decompress(job.content, build_model(composed()))
        right = (decoded.eval()(images).argmax(1) == labels).float().mean().item()
        assert rows["clean_accuracy"].value == pytest.approx(right)
        assert all(torch.equal(a, b) for a, b in zip(decoded.parameters(), stored_model(job).parameters(), strict=True))
    asked = [jobs[name].sparsity_asked for name in ("dense", "prune-0.1", "prune-0.02")]
    assert asked == [0.0, 0.9, 0.98]
    detail = next(row.detail for row in jobs["prune-0.02"].current_rows() if row.metric == "cost_coded_bits")
    pruned = float(re.search(r"Prune\(sparsity=([\d.]+),.* -> Code\(\)", detail)[1])
    masks = masks_of_zeros(stored_model(jobs["prune-0.02"]))
    assert masks.sparsity == pytest.approx(pruned, abs=1e-3)
    assert masks_of_zeros(stored_model(jobs["half"])) is None


def test_the_report_speaks_of_bits(sweep):
    folder = sweep[0] / "outputs" / "runs"
    page = re.sub(r"\s+", " ", (folder / "report.html").read_text())
    for said in (
        "runs: what compression did",
        '<th class="n">bits asked</th>',
        "prune at 2 % of the bits: ",
        "quantise cannot reach 2 % of the bits (bits=0.02 cannot be reached by Quantise",
        "bits, share of dense float32",
        "<dt>Bits</dt>",
    ):
        assert said in page
    assert "sparsity asked" not in page
    assert "density (below it: sparsity)" not in page
    table = pd.read_csv(folder / "table.csv")
    assert list(table.columns[:6]) == ["data", "model", "method", "bits_asked", "bits", "seeds"]
    assert dict(zip(table["method"], table["bits_asked"], strict=True))["dense"] == 1.0
    pruned = table[table["method"] == "prune"]
    assert pruned["bits_asked"].tolist() == [0.1, 0.02]
    assert pruned["bits"].tolist() == pytest.approx([0.1, 0.02], rel=0.1)
    half = table[table["method"] == "half"].iloc[0]
    assert half["bits_asked"] == pytest.approx(half["bits"], rel=0.01)  # what it achieved
    assert 0.3 < half["bits"] < 0.5


def test_a_launch_again_does_nothing_and_a_damaged_file_is_made_again(sweep, command):
    folder, arguments, _ = sweep
    files = {path: path.read_bytes() for path in folder.glob("outputs/runs/*/model.lsc")}
    assert len(files) == 4
    again = command(*arguments, cwd=folder)
    assert again.returncode == 0, again.stderr
    found = counts(folder / "outputs" / "runs")
    assert (found["skipped"], found["trained"]) == (6, 6)
    assert {path: path.read_bytes() for path in files} == files
    job = jobs_of(folder)["quantise-0.1"]
    rows = job.rows.read_bytes()
    job.content.write_bytes(files[job.content][:-1] + b"\0")
    repaired = command(*arguments, cwd=folder)
    assert repaired.returncode == 0, repaired.stderr
    assert "kept as model.lsc.unreadable, the trained network is compressed again" in repaired.stderr
    assert job.content.read_bytes() == files[job.content]
    assert job.rows.read_bytes() == rows


def test_a_compressed_network_is_exported_as_it_is_decoded(sweep, tmp_path, capsys):
    job = jobs_of(sweep[0])["prune-0.1"]
    export_main([str(job.folder), "--to", str(tmp_path)])
    assert (tmp_path / "network.packed").stat().st_size < 0.4 * 4 * NUMBERS
    assert "network.packed" in capsys.readouterr().out


def test_killed_between_training_and_compression_it_ends_in_the_same_bytes(command, tmp_path):
    arguments = [*BARE, "trainer.max_epochs=1", "compression=prune", "bits=0.05", "compression.epochs=20"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launch = subprocess.Popen([sys.executable, "-m", "lightning_sparse", *arguments], cwd=killed, env=environment)
    while not list(killed.glob("outputs/runs/*/model.ckpt")):
        assert launch.poll() is None
        time.sleep(0.02)
    launch.send_signal(signal.SIGKILL)
    launch.wait()
    assert not list(killed.rglob("model.lsc"))
    for folder in (killed, whole):
        done = command(*arguments, cwd=folder)
        assert done.returncode == 0, done.stderr
    (first,), (second,) = whole.rglob("model.lsc"), killed.rglob("model.lsc")
    assert first.read_bytes() == second.read_bytes()
    assert json.loads(first.with_name("model.lsc.json").read_text())["bytes"] == first.stat().st_size
    values = [{row.metric: row.value for row in records.read(f.with_name("records.jsonl"))} for f in (first, second)]
    assert values[0] == values[1]


def test_a_dense_network_of_the_sweep_is_trained_once_and_ends_in_the_same_bytes(command, tmp_path):
    arguments = ["--multirun", *QUICK, "bits=0.1"]
    both, alone = tmp_path / "both", tmp_path / "alone"
    for folder, compressions in ((both, "none,prune,narrow"), (alone, "prune")):
        folder.mkdir()
        done = command(*arguments, f"compression={compressions}", cwd=folder)
        assert done.returncode == 0, done.stderr
    with_dense, prune = jobs_of(both), jobs_of(alone)["prune-0.1"]
    dense, copied = with_dense["dense"], with_dense["prune-0.1"]
    assert copied.checkpoint.read_bytes() == dense.checkpoint.read_bytes()
    assert with_dense["narrow-0.1"].checkpoint.read_bytes() != dense.checkpoint.read_bytes()
    assert copied.content.read_bytes() == prune.content.read_bytes()
    assert copied.objective == prune.objective is not None
    rows = [{row.metric: row.value for row in job.current_rows()} for job in (copied, prune)]
    assert rows[0] == rows[1]
    # Where the dense one cannot be read, this one is trained.
    shutil.rmtree(copied.folder)
    dense.checkpoint.write_bytes(b"broken")
    again = command(*arguments, "compression=prune", cwd=both)
    assert again.returncode == 0, again.stderr
    assert "the training starts again" in again.stderr
    assert copied.content.read_bytes() == prune.content.read_bytes()
