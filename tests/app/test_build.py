"""Models and data built again from a job's folder."""

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

import lightning_sparse.app  # noqa: F401  registers the resolvers that configurations use
from lightning_sparse.app import build
from lightning_sparse.app.build import build_model
from lightning_sparse.errors import SparsityError
from lightning_sparse.results.jobs import Job


@pytest.fixture
def job(tmp_path):
    """A job that was trained with batch normalisation measured anew."""
    job = Job("run", "dense", "digits", "resnet20", 0, 0.0, folder=tmp_path / "run")
    with initialize_config_module("lightning_sparse.conf", version_base="1.3"):
        config = compose("config", ["model=resnet20", "sparsity=dense", "batchnorm=recalibrated"])
    (job.folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(config, job.folder / ".hydra" / "config.yaml")
    torch.save({"state_dict": build.build_model(config).state_dict()}, job.checkpoint)
    return job


def test_a_model_built_again_is_as_it_was_measured(job):
    trained = torch.load(job.checkpoint)["state_dict"]
    assert all(torch.equal(trained[name], value) for name, value in build.stored_model(job).state_dict().items())
    model, said = build.stored_model_as_measured(job)
    assert said.startswith("BatchNorm statistics estimated anew on ")
    changed = {name for name, value in model.cpu().state_dict().items() if not torch.equal(trained[name], value)}
    assert {name.rpartition(".")[2] for name in changed} == {"running_mean", "running_var", "num_batches_tracked"}


@pytest.mark.parametrize(("accelerator", "on_gpu"), [("auto", True), ("gpu", True), ("cuda", True), ("cpu", False)])
@pytest.mark.parametrize("there", [True, False])
def test_attacks_are_tried_on_the_gpu_where_there_is_one_that_the_trainer_may_use(
    monkeypatch, accelerator, on_gpu, there
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert build.device_of_trainer(accelerator).type == ("cuda" if there and on_gpu else "cpu")


def test_a_model_is_put_where_its_trainer_would_put_it(job, monkeypatch):
    """On meta, a device that exists everywhere."""
    config = job.folder / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("batchnorm: recalibrated", "batchnorm: trained"))
    asked = []
    monkeypatch.setattr(
        build, "device_of_trainer", lambda accelerator: asked.append(accelerator) or torch.device("meta")
    )
    model, _ = build.stored_model_as_measured(job)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert asked == ["auto"]


@pytest.mark.parametrize("at", ["model", "model.optimizer"])
def test_an_import_path_that_leads_nowhere_is_said_in_a_sentence(at):
    with initialize_config_module("lightning_sparse.conf", version_base="1.3"):
        config = compose("config", [f"{at}._target_=torch.optim.SDG"])
    with pytest.raises(SparsityError, match=r"model cannot be built .*torch.optim.SDG.*: correct the import path"):
        build_model(config)
