"""When it measures, that its numbers are those of PGD, and that measuring changes nothing."""

import csv

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, TensorDataset

import settings
from advised import call_in
from lightning_sparse import GradualPruning, SparsityError
from lightning_sparse.anatomy.isolation import untouched
from lightning_sparse.callbacks.adversarial_training import AdversarialTraining
from lightning_sparse.callbacks.robustness_monitor import RobustnessMonitor
from lightning_sparse.data.images import ImageData
from lightning_sparse.measure.robustness.pgd import pgd
from settings import SAFE

# Resuming without the ModelCheckpoint that saved is what a test here does.
pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")

EPS = 0.1


class Pictures(settings.Module):
    def __init__(self, seed=0):
        super().__init__(seed=seed)
        self.lr = 0.02

    def forward(self, x):
        return super().forward(x.flatten(1))


def pictures(begin, end):
    flat, labels = settings.digits()[begin:end]
    return flat.view(-1, 1, 8, 8), labels


@pytest.fixture
def loader():
    return DataLoader(TensorDataset(*pictures(0, 512)), batch_size=64)


@pytest.fixture
def held_out():
    return pictures(512, 640)


def robust(model, images, labels, eps=EPS, norm="Linf", seed=0):
    """The share of images right on clean that PGD of 10 steps, started from the seed's noise, does not break."""
    with untouched(model, seed):
        right = model(images).argmax(1) == labels
        _, broken = pgd(model, images[right], labels[right], eps=eps, norm=norm, steps=10)
        return int((~broken).sum()) / len(labels)


class Oracle(Callback):
    """Attacks the model at the end of every epoch, without the callback."""

    def __init__(self, data):
        self.data, self.found = data, []

    def on_train_epoch_end(self, trainer, pl_module):
        self.found.append(robust(pl_module, *self.data))


def logged(path, name):
    with path.open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def test_it_says_what_pgd_finds_after_every_epoch(loader, held_out, make_trainer, tmp_path):
    method = GradualPruning(0.9, begin=8, end=24, every=8)  # 8 steps an epoch: masks change in the second and third
    monitor, oracle = RobustnessMonitor(EPS, data=held_out), Oracle(held_out)
    logger = CSVLogger(tmp_path, name="", version="curves")
    make_trainer(monitor, method, oracle, max_epochs=5, logger=logger).fit(Pictures(), loader)
    rows = monitor.rows()
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["step"] for row in rows] == [8, 16, 24, 32, 40]
    assert [row["robust_accuracy"] for row in rows] == pytest.approx(oracle.found)
    assert len({row["robust_accuracy"] for row in rows}) > 1
    assert rows[-1]["sparsity"] == method.sparsity == pytest.approx(0.9, abs=1e-3)
    assert all(row["low"] <= row["robust_accuracy"] < min(row["high"], row["clean_accuracy"]) for row in rows)
    assert {(row["n"], row["split"]) for row in rows} == {(128, "validation")}
    curves = tmp_path / "curves" / "metrics.csv"
    assert logged(curves, "robust/monitor/eps_0.1") == pytest.approx([row["robust_accuracy"] for row in rows])
    assert logged(curves, "sparsity") == pytest.approx([row["sparsity"] for row in rows])


def test_it_looks_less_often_where_it_is_asked_to(loader, held_out, make_trainer):
    for every, looks in ((2, [2, 4, 5]), (9, [5])):
        monitor = RobustnessMonitor(EPS, data=held_out, every=every)
        make_trainer(monitor, max_epochs=5).fit(Pictures(), loader)
        assert [row["epoch"] for row in monitor.rows()] == looks
        assert {row["sparsity"] for row in monitor.rows()} == {0.0}


def test_training_images_are_attacked_beside_those_held_out(loader, held_out, make_trainer, tmp_path):
    trained_on = pictures(0, 128)
    monitor = RobustnessMonitor(EPS, data=held_out, training=trained_on)
    of_training, of_others = Oracle(trained_on), Oracle(held_out)
    logger = CSVLogger(tmp_path, name="", version="curves")
    make_trainer(monitor, of_training, of_others, max_epochs=3, logger=logger).fit(Pictures(), loader)
    found = {
        split: [row["robust_accuracy"] for row in monitor.rows() if row["split"] == split]
        for split in ("train", "validation")
    }
    assert found["train"] == pytest.approx(of_training.found)
    assert found["validation"] == pytest.approx(of_others.found)
    assert found["train"] != found["validation"]
    curves = tmp_path / "curves" / "metrics.csv"
    assert logged(curves, "robust/monitor/train/eps_0.1") == pytest.approx(found["train"])
    assert logged(curves, "robust/monitor/eps_0.1") == pytest.approx(found["validation"])


def test_several_eps_and_the_l2_norm(loader, held_out, make_trainer):
    monitor = RobustnessMonitor([1.0, 0.4], data=held_out, norm="L2", seed=3)
    trainer = make_trainer(monitor, max_epochs=2)
    model = Pictures()
    trainer.fit(model, loader)
    first, second = monitor.rows()[-2:]
    assert (first["eps"], second["eps"]) == (0.4, 1.0)
    oracle = robust(model, *held_out, eps=0.4, norm="L2", seed=3)
    assert first["robust_accuracy"] == pytest.approx(oracle)
    assert first["robust_accuracy"] > second["robust_accuracy"]
    assert {"robust/monitor/L2/eps_0.4", "robust/monitor/L2/eps_1"} <= set(trainer.callback_metrics)


def test_it_takes_images_of_the_data_module(make_trainer):
    data = ImageData("digits", shape=(1, 8, 8), classes=10, mean=[0.3], std=[0.4], batch_size=256)
    monitor = RobustnessMonitor(EPS, training=True, images=100)
    model = Pictures()
    make_trainer(monitor, max_epochs=1).fit(model, datamodule=data)
    for row, split in zip(monitor.rows(), ("validation", "train"), strict=True):
        assert row["robust_accuracy"] == pytest.approx(robust(model, *data.split(split, 100)))
        assert (row["split"], row["n"]) == (split, 100)


def test_a_loader_will_do_and_no_more_images_than_asked_are_taken(loader, held_out, make_trainer):
    def row(data):
        monitor = RobustnessMonitor(EPS, data=data, images=70)
        make_trainer(monitor, max_epochs=1).fit(Pictures(), loader)
        return monitor.rows()[-1]

    assert row(DataLoader(TensorDataset(*held_out), batch_size=32)) == row(held_out)
    assert row(held_out)["n"] == 70


@pytest.mark.parametrize("attack", [[], [AdversarialTraining(EPS)]])
def test_the_training_is_the_same_without_it(attack, loader, held_out, make_trainer):
    class Dropping(Pictures):
        def training_step(self, batch, batch_idx):
            return super().training_step((torch.nn.functional.dropout(batch[0], 0.1), batch[1]), batch_idx)

    models = []
    for watch in ([], [RobustnessMonitor(EPS, data=held_out)]):
        model = Dropping()
        torch.manual_seed(1)
        make_trainer(*attack, *watch, GradualPruning(0.9, every=2), max_epochs=2).fit(model, loader)
        models.append(model)
        assert model.training
    assert settings.same_state(*models)


def test_a_resumed_training_has_the_rows_of_the_whole(loader, held_out, make_trainer, tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)

    def fit(*callbacks, ckpt_path=None, **arguments):
        monitor = RobustnessMonitor(EPS, data=held_out)
        method = GradualPruning(0.9, begin=0, end=32, every=16)
        trainer = make_trainer(monitor, method, *callbacks, max_epochs=5, **arguments)
        trainer.fit(Pictures(), loader, ckpt_path=ckpt_path, **SAFE)
        return monitor

    whole = fit(keep, enable_checkpointing=True)
    assert len(torch.load(tmp_path / "epoch=1.ckpt", weights_only=True)["callbacks"]["RobustnessMonitor"]["rows"]) == 2
    resumed = fit(ckpt_path=tmp_path / "epoch=1.ckpt")
    assert [row["epoch"] for row in whole.rows()] == [1, 2, 3, 4, 5]
    assert resumed.rows() == whole.rows()
    make_trainer(resumed, max_epochs=1).fit(Pictures(), loader)
    assert len(resumed.rows()) == 1  # a new training forgets the old


def test_model_checkpoint_can_monitor_it(loader, held_out, make_trainer, tmp_path):
    monitor = RobustnessMonitor(EPS, data=held_out)
    keep = ModelCheckpoint(tmp_path, monitor="robust/monitor/eps_0.1", mode="max", filename="best")
    make_trainer(monitor, keep, max_epochs=3, enable_checkpointing=True).fit(Pictures(), loader)
    assert float(keep.best_model_score) == pytest.approx(max(row["robust_accuracy"] for row in monitor.rows()))


def test_after_a_spawned_fit_the_rows_are_in_the_main_process(loader, held_out, make_trainer):
    monitor = RobustnessMonitor(EPS, data=held_out)
    model = Pictures()
    make_trainer(monitor, devices=2, strategy="ddp_spawn", max_epochs=1).fit(model, loader)
    (row,) = monitor.rows()
    assert row["robust_accuracy"] == pytest.approx(robust(model, *held_out), abs=0.03)  # BatchNorm is rank 0's


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": 8}, r"eps=8 is not in \(0, 1\]"),
        ({"eps": []}, r"eps=\[\] is not a list of radii"),
        ({"eps": 0.1, "norm": "L1"}, r"norm='L1' does not exist"),
        ({"eps": 0.1, "images": 0}, r"images=0 is not an integer of at least 1: write 256"),
        ({"eps": 0.1, "every": 0.5}, r"every=0\.5 is not an integer of at least 1: write 1"),
        ({"eps": 0.1, "forward": "logits"}, r"forward='logits' cannot be called: write forward=lambda"),
    ],
)
def test_bad_arguments_are_refused_at_once(arguments, message):
    with pytest.raises(SparsityError, match=message):
        RobustnessMonitor(**arguments)


def test_without_data_it_is_refused_before_training(loader, make_trainer):
    with pytest.raises(SparsityError, match=r"data=None takes images of the Trainer's data module, .* write data="):
        make_trainer(RobustnessMonitor(EPS), max_epochs=1).fit(Pictures(), loader)


def test_without_training_images_it_is_refused_before_training(loader, held_out, make_trainer):
    monitor = RobustnessMonitor(EPS, data=held_out, training=True)
    with pytest.raises(SparsityError, match=r"training=True takes images of .* write training=\(images, labels\)"):
        make_trainer(monitor, max_epochs=1).fit(Pictures(), loader)


def test_a_module_with_other_outputs_is_looked_at_by_the_forward_that_the_message_says(loader, held_out, make_trainer):
    class Telling(Pictures):
        def forward(self, x):
            return super().forward(x) if self.training else {"logits": super().forward(x)}

    model = Telling()
    with pytest.raises(SparsityError, match="the model gives a dict of 'logits'") as error:
        make_trainer(RobustnessMonitor(EPS, data=held_out), max_epochs=1).fit(model, loader)
    told = eval(call_in(error, "RobustnessMonitor(...").replace("...", "EPS, data=held_out"), globals() | locals())
    plain = RobustnessMonitor(EPS, data=held_out)
    make_trainer(told, max_epochs=1).fit(Telling(), loader)
    make_trainer(plain, max_epochs=1).fit(Pictures(), loader)
    assert told.rows() == plain.rows() != []


class NoGradient(Pictures):
    def forward(self, x):
        return super().forward((x > 0.5).float())


@pytest.mark.parametrize(
    ("module", "data", "message"),
    [
        (NoGradient, lambda x, y: (x, y), "no gradient in the pixels.*write RobustnessMonitor"),
        (Pictures, lambda x, y: (x, y + 1), "labels reach 10, but the model has 10 classes"),
        (Pictures, lambda x, y: (x[:, :, :7], y), r"does not take images of shape \(n, 1, 7, 8\)"),
        (Pictures, lambda x, y: (255 * x, y), r"images lie in \[0, 255\]"),
        (Pictures, lambda x, y: (x.flatten(1), y), r"images have shape \(128, 64\), not"),
        (Pictures, lambda x, y: (x[:0], y[:0]), "n >= 1"),
        (Pictures, lambda x, y: [], "holds no batch"),
    ],
)
def test_what_cannot_be_looked_at_is_refused_before_training(module, data, message, loader, held_out, make_trainer):
    model = module()
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(SparsityError, match=message):
        make_trainer(RobustnessMonitor(EPS, data=data(*held_out)), max_epochs=1).fit(model, loader)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
