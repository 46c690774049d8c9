"""A checkpoint in a job's folder that cannot be read, or is of another training, costs the training and nothing else."""

import shutil

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything

from lightning_sparse import GradualPruning
from lightning_sparse.app.train import survival, train
from lightning_sparse.data.images import ImageData
from lightning_sparse.models import Classifier, lenet_300_100
from lightning_sparse.results.jobs import Job

DIGITS = {"shape": (1, 8, 8), "classes": 10, "mean": [0.3], "std": [0.4]}


def launch(job, sparsity=0.9):
    """Train as a launch does, and return the weights and the masks."""
    seed_everything(0, verbose=False)
    model = Classifier(lenet_300_100((1, 8, 8), 10), mean=[0.3], std=[0.4])
    trainer = Trainer(
        accelerator="cpu", max_epochs=2, logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[GradualPruning(sparsity), *survival(job)],
    )  # fmt: skip
    masks = train(job, model, ImageData("digits", **DIGITS, batch_size=512), trainer, [])
    return model.state_dict(), masks


@pytest.fixture
def new(tmp_path):
    def make(name):
        return Job(name, "gradual_pruning", "digits", "lenet", 0, 0.9, folder=tmp_path / name).save()

    return make


def same(one, other):
    return (
        all(torch.equal(one[0][name], other[0][name]) for name in one[0]) and one[1].checksum() == other[1].checksum()
    )


@pytest.mark.parametrize("data", [b"", b"<html>", None], ids=["empty", "html", "half"])
@pytest.mark.parametrize("name", ["model.ckpt", "training.ckpt"])
def test_a_broken_checkpoint_is_trained_again(name, data, new, capsys):
    job = new("a")
    whole = launch(job)
    file = job.folder / name
    content = job.checkpoint.read_bytes()[:20_000] if data is None else data
    if name == "training.ckpt":
        job.checkpoint.unlink()
    file.write_bytes(content)
    assert same(launch(job), whole)
    assert file.with_name(f"{name}.unreadable").read_bytes() == content
    said = capsys.readouterr().err
    assert f"{name} in a cannot be read (" in said
    assert "the training starts again" in said
    assert same(launch(job), whole)
    assert "cannot be read" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["model.ckpt", "training.ckpt"])
def test_a_checkpoint_of_another_training_is_put_aside(name, new, capsys):
    other, job, alone = new("other"), new("a"), new("alone")
    launch(other, sparsity=0.5)
    shutil.copy(other.checkpoint, job.folder / name)
    assert same(launch(job), launch(alone))
    assert "made with other arguments" in capsys.readouterr().err
    assert (job.folder / f"{name}.unreadable").exists()
