"""Times and exported forms in a sweep: a row for each, in the table, on the page and in the figures, beside a dense copy."""

import json

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from torch import nn

from lightning_sparse import SparsityError
from lightning_sparse.app.measuring.export_forms import FORMS, bytes_of
from lightning_sparse.app.measuring.latency import LATENCY, jobs_at_once
from lightning_sparse.app.measuring.measurements import measurements_of, try_measurements

BARE = ["model=lenet_300_100", "trainer.max_epochs=1", "saliency=none", "stability=none", "transfer=none", "cost=none"]
BARE += ["vog=none", "logger=none", "attack.images=40", "attack.steps=1", "attack.eps=[0.1]", "attack.attacks=[fgsm]"]
ON = ["latency=default", "latency.batch_sizes=[1,8]", "latency.seconds=0.05", "export=[bf16]"]
OFF = {"attack": {"eps": []}, "saliency": {"methods": []}, "transfer": {"images": 0}, "data": {"name": "digits"}}


@pytest.fixture(scope="module")
def sweep(command, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("latency")
    axes = ["sparsity=dense,gradual_pruning,small_dense", "sparsity.final_sparsity=0.9", "seed=0"]
    done = command("-cn", "quick", *BARE, *ON, *axes, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd / "outputs" / "quick"


def test_every_job_has_its_rows_in_the_table_and_on_the_page(sweep):
    frame = pd.read_csv(sweep / "records.csv")
    assert frame["run"].nunique() == 3
    timed = [f"cost_latency_{name}" for name in ("model", "bf16", "noise")] + ["cost_throughput_dense"]
    counts = frame["metric"].value_counts()
    assert all(counts[metric] == 3 * 2 for metric in timed)
    assert counts["cost_size_bf16"] == counts["cost_size_model"] == 3
    rows = frame[frame["metric"].str.startswith("cost_latency_")]
    assert set(rows["condition"]) == {"batch=1", "batch=8"}
    assert (rows["low"] <= rows["value"]).all()
    assert (rows["value"] <= rows["high"]).all()
    assert rows["detail"].str.contains("1 thread; load .* one job at a time").all()
    memory = frame[frame["metric"] == "cost_memory_model"]
    small = memory["method"] == "small_dense"
    assert (memory[~small]["value"] == 1.0).all()
    assert (memory[small]["value"] < 0.3).all()  # beside the dense network of full width
    table = pd.read_csv(sweep / "table.csv")
    assert {"cost/latency_model/batch=8", "cost/latency_noise/batch=1", "cost/size_bf16"} <= set(table.columns)
    dense = table[table["method"] == "dense"].iloc[0]
    weights = 64 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10
    assert dense["cost/size_model"] == 4 * (weights + 2)  # and the mean and the deviation that it normalises by
    assert dense["cost/size_bf16"] == 2 * (weights + 2)
    page = (sweep / "report.html").read_text()
    assert "time / dense, bf16, batch=8" in page
    assert "Seconds of a forward pass in eval mode" in page
    assert {"pareto_time.png", "pareto_size.png"} <= {path.name for path in (sweep / "figures").iterdir()}


def test_what_is_measured_is_not_measured_again_and_another_form_is(sweep, command):
    rows = {path: path.read_text() for path in sweep.glob("*/records.jsonl")}
    axes = ["sparsity=dense", "seed=0"]
    again = command("-cn", "quick", *BARE, *ON[:-1], "export=bf16", *axes, cwd=sweep.parents[1])
    assert "done before" in again.stdout, again.stdout
    assert {path: path.read_text() for path in sweep.glob("*/records.jsonl")} == rows
    command("-cn", "quick", *BARE, *ON[:-1], *axes, cwd=sweep.parents[1])
    dense = next(path for path in rows if path.parent.name.startswith("dense"))
    added = [json.loads(line) for line in dense.read_text().removeprefix(rows[dense]).splitlines()]
    assert {line["metric"] for line in added if "metric" in line} == {
        f"cost_{name}"
        for name in ("latency_model", "latency_noise", "memory_model", "throughput_model", "throughput_dense")
    }


def settings(**changes):
    found = [measurement for measurement in measurements_of({**OFF, **changes}) if measurement.kind is LATENCY]
    return found[0].settings if found else None


def test_nothing_is_timed_or_exported_unless_asked_for():
    timed = {"batch_sizes": [1], "seconds": 0.001}
    assert settings() is settings(latency={"batch_sizes": None}) is settings(export=[]) is None
    assert settings(latency=timed) == timed | {"export": []}
    assert settings(export=["b", "a"]) == settings(export=["a", "b", "a"]) == {"export": ["a", "b"]}


def test_before_the_training_it_is_tried_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few = (torch.rand(2, 1, 8, 8), torch.tensor([0, 1]))
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    asked = measurements_of({**OFF, "latency": {"batch_sizes": [64], "seconds": 60.0}, "export": ["bf16"]})
    try_measurements([measurement for measurement in asked if measurement.kind is LATENCY], net, few)
    assert list(tmp_path.iterdir()) == []
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    net.history = net[1].weight * 2
    with pytest.raises(SparsityError, match=r"leave bf16 out, export=none; or write latency=none"):
        try_measurements([measurement for measurement in asked if measurement.kind is LATENCY], net, few)


def test_bf16_gives_nearly_the_same_in_half_the_bytes(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    images = torch.rand(16, 1, 8, 8)
    form = FORMS["bf16"](net, None, images, tmp_path)
    assert form.bytes == bytes_of(form.module) == bytes_of(net) // 2
    found = form.module(images)
    assert found.dtype == torch.float32
    assert not torch.equal(found, net(images))
    torch.testing.assert_close(found, net(images), rtol=0.02, atol=0.02)
    assert net[1].weight.dtype == torch.float32


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_bytes_count_shared_tensors_once_and_sparse_ones_by_what_they_hold():
    tied = nn.ModuleList([nn.Linear(5, 5, bias=False) for _ in range(2)])
    tied[1].weight = tied[0].weight
    assert bytes_of(tied) == 4 * 25
    sparse = nn.Module()
    sparse.register_buffer("weight", torch.eye(6).to_sparse_csr())
    assert bytes_of(sparse) == 4 * 6 + 8 * 6 + 8 * 7


@pytest.mark.parametrize(
    ("launcher", "says"),
    [
        (["hydra/launcher=basic"], "one job at a time"),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=3"], "up to 3 jobs at once on this machine"),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=-1"], "jobs at once on this machine"),
        (["hydra/launcher=submitit_slurm"], "is not known"),
    ],
)
def test_the_launcher_says_how_many_jobs_share_the_machine(launcher, says):
    assert jobs_at_once() == ""  # outside Hydra
    with initialize_config_module("lightning_sparse.conf", version_base="1.3"):
        config = compose("config", overrides=launcher, return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    try:
        assert says in jobs_at_once()
    finally:
        HydraConfig.instance().cfg = None
