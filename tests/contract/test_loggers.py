"""Every logger of Lightning's takes what the callbacks log, and no name is the beginning of another's path."""

import csv
from itertools import product

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from torch.utils.data import DataLoader, TensorDataset

from lightning_sparse import GradualPruning, RobustnessMonitor, SparsityMonitor, VarianceOfGradients
from lightning_sparse.results.quantities import QUANTITIES
from lightning_sparse.results.records import NARROWS, Record

EPOCHS = 3


def fit(logger):
    """Train a small classifier with every callback that logs."""
    pytest.importorskip("scipy")
    from lightning_sparse.models import Classifier, lenet_300_100

    torch.manual_seed(0)
    images, labels = torch.rand(48, 1, 4, 4), torch.arange(48) % 3
    monitors = [
        SparsityMonitor(),
        RobustnessMonitor([1e-5, 0.1], data=(images, labels)),
        RobustnessMonitor(1.0, norm="L2", data=(images, labels)),
        VarianceOfGradients((images, labels)),
    ]
    loader = DataLoader(TensorDataset(images, labels), batch_size=16)
    for monitor in monitors[1:3]:  # of two robustness monitors only one may be in a checkpoint
        arguments = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
        callbacks = [GradualPruning(0.5, every=2), monitors[0], monitor, monitors[3]]
        trainer = Trainer(
            max_epochs=EPOCHS,
            logger=logger,
            enable_checkpointing=False,
            callbacks=callbacks,
            log_every_n_steps=1,
            **arguments,
        )
        trainer.fit(Classifier(lenet_300_100((1, 4, 4), 3), mean=[0.5], std=[0.5]), loader, loader)


class Names(Logger):
    """What loggers are asked to log."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    name, version = "names", 0

    def log_metrics(self, metrics, step=None):
        self.seen |= set(metrics)

    def log_hyperparams(self, params, *args, **kwargs):
        pass


@pytest.fixture(scope="module")
def logged():
    logger = Names()
    fit(logger)
    return logger.seen


EXPECTED = {"sparsity", "layer_sparsity/net.1.weight", "dead_units", "layer_dead_units/net.1.weight", "turnover"}
EXPECTED |= {"robust/monitor/eps_0.1", "robust/monitor/eps_1e-05", "robust/monitor/L2/eps_1", "vog/rank_stability"}
EXPECTED |= {"flops/share", "age/mean", "train_loss", "val_accuracy"}


def charts():
    """Names of the charts of all quantities, with what they are measured for."""
    for known in QUANTITIES:
        metric = f"{known.metric}some" if known.metric.endswith("_") else known.metric
        attributions = ("gradient", "smoothgrad") if known.group == "saliency" else ("",)
        balls = [("", "", None)]
        if metric == "robust_accuracy":
            balls = list(product(("pgd", "worst"), ("Linf", "L2"), (0.1, 0.2)))
        conditions = ("", "same images", "early", "late", "epoch 3", "epoch 30")
        if known.group in ("corruption", "shift") or metric == "forgotten_recall_shift":
            conditions = ("rotation 1", "rotation 2", "blur 1")
        for attribution, (attack, norm, eps), condition in product(attributions, balls, conditions):
            record = Record(metric, 0.5, 9, attack=attack, norm=norm, eps=eps, attribution=attribution)
            yield Record(**{**vars(record), "condition": condition}).chart


def test_no_name_is_the_beginning_of_anothers_path(logged):
    assert logged >= EXPECTED
    names = logged | set(charts())
    folders = {name[:at] for name in names for at, letter in enumerate(name) if letter == "/"}
    assert sorted(names & folders) == []
    assert not any("//" in name or name.startswith("/") or name.endswith("/") for name in names)


def test_conditions_that_narrow_are_part_of_the_name():
    assert all("/" not in Record("vog_mean", 0.1, 9, condition=f"{word}x").chart[4:] for word in NARROWS)


def test_csv(tmp_path):
    logger = CSVLogger(tmp_path, name="", version="curves")
    fit(logger)
    with (tmp_path / "curves" / "metrics.csv").open() as file:
        assert set(csv.DictReader(file).fieldnames) >= EXPECTED


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path, name="", version="curves")
    fit(logger)
    logger.experiment.flush()
    read = EventAccumulator(str(tmp_path / "curves"))
    read.Reload()
    assert set(read.Tags()["scalars"]) >= EXPECTED


def test_wandb(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    from offline_runs import history, lines

    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb.teardown()  # a service that other tests have started knows their settings
    logger = WandbLogger(name="curves", save_dir=tmp_path, offline=True)
    fit(logger)
    wandb.finish()
    wandb.teardown()  # and other tests' processes would find this one in the environment
    assert set().union(*history(lines(tmp_path))) >= EXPECTED


@pytest.mark.mlflow
def test_mlflow(tmp_path, monkeypatch):
    monkeypatch.setenv(
        "MLFLOW_ALLOW_FILE_STORE", "true"
    )  # the store that keeps a file a metric, and Lightning's default
    logger = MLFlowLogger("curves", save_dir=str(tmp_path / "store"))
    fit(logger)
    assert set(logger.experiment.get_run(logger.run_id).data.metrics) >= EXPECTED
