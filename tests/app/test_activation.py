"""A job with sparse activations: its rows are those of the network that was trained, in a later launch too."""

import pytest
import torch

from lightning_sparse.app.build import stored_model
from lightning_sparse.app.export_command import main as export_main
from lightning_sparse.data import ImageData
from lightning_sparse.ephemeral import activations_of
from lightning_sparse.results import records
from lightning_sparse.results.jobs import read_job

SMALL = [
    "saliency=none",
    "stability=none",
    "transfer=none",
    "cost=none",
    "attack=none",
    "logger=none",
    "trainer.max_epochs=1",
]


def launch(command, folder, *more):
    asked = [f"output={folder}", "activation=top_k", "sparsity=dense", "activation.density=0.05", *SMALL, *more]
    done = command(*asked, cwd=folder)
    assert done.returncode == 0, done.stderr
    (path,) = (folder / "runs").glob("*/job.json")
    job = read_job(path)
    return job, {(row.metric, row.condition): row.value for row in records.read(job.rows, job.run)}


def test_what_is_measured_is_the_network_with_its_activations_in_a_later_launch_too(command, tmp_path, capsys):
    job, rows = launch(command, tmp_path)
    assert job.model == "lenet_300_100 (top_k-0.05)"
    model = stored_model(job).eval()
    digits = ImageData("digits", shape=[1, 8, 8], classes=10, mean=[0.3053], std=[0.3764])
    digits.setup()
    images, labels = digits.split("test")

    def accuracy():
        with torch.no_grad():
            return float((model(images).argmax(1) == labels).double().mean())

    assert rows["clean_accuracy", ""] == accuracy()
    sparse = model(images)
    with activations_of(None, model):
        assert not torch.equal(model(images), sparse)
    again, rows = launch(command, tmp_path, "activity=default")  # loads the checkpoint, and trains nothing
    assert again.run == job.run
    assert rows["activation_sparsity", "net.5.weight"] >= 0.95  # 5 of 100 inputs
    assert rows["activation_sparsity_natural", "net.5.weight"] < rows["activation_sparsity", "net.5.weight"]
    with pytest.raises(SystemExit, match="2"):
        export_main([str(job.folder)])
    assert "give a network trained with activation=none" in capsys.readouterr().err
