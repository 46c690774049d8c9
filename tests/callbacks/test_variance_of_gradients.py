"""The callback against gradients that are stored in full: it changes nothing, resumes exactly, and works in any Trainer."""

import copy
import csv
import json

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from scipy import stats
from torch import nn
from torch._dynamo.testing import CompileCounter

import settings
from lightning_sparse import GradualPruning, SparsityError
from lightning_sparse.callbacks.variance_of_gradients import VarianceOfGradients
from lightning_sparse.data.images import ImageData
from lightning_sparse.measure.forgetting.gradient_variance import class_normalised, true_class_gradients
from settings import SAFE

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning"),
]


class Module(settings.Module):
    """Flattens its images, and drops out."""

    def forward(self, x):
        return super().forward(nn.functional.dropout(x.flatten(1), 0.2, self.training))


def probe(count=40):
    images, labels = settings.digits()[:count]
    return images.view(-1, 1, 8, 8), labels


class Beside(Callback):
    """Stores the gradients themselves."""

    def __init__(self):
        self.gradients = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.gradients.append(true_class_gradients(pl_module, *probe()).double().numpy())


def deviation(gradients):
    return np.std(gradients, axis=0).reshape(len(gradients[0]), -1).mean(axis=1)


def rows(found, metric):
    return {record.condition: record for record in found.records if record.metric == metric}


def test_scores_windows_and_stability_are_those_of_stored_gradients(loader, make_trainer, tmp_path):
    vog, beside, pruning = VarianceOfGradients(probe(), window=0.4), Beside(), GradualPruning(0.9)
    logger = CSVLogger(tmp_path, name="", version="curves")
    make_trainer(vog, beside, pruning, logger=logger, max_epochs=7).fit(Module(), loader)
    found, stored = vog.measured(), beside.gradients
    np.testing.assert_allclose(found.arrays["vog"], deviation(stored), rtol=1e-4)
    np.testing.assert_allclose(found.arrays["vog_early"], deviation(stored[:2]), rtol=1e-4)  # 2.8 epochs: 2 have ended
    np.testing.assert_allclose(found.arrays["vog_late"], deviation(stored[4:]), rtol=1e-4)  # those that end after 4.2
    assert found.arrays["vog"].min() > 1e-3
    means = rows(found, "vog_mean")
    assert {part: record.value for part, record in means.items()} == {
        "": pytest.approx(found.arrays["vog"].mean()),
        "early": pytest.approx(found.arrays["vog_early"].mean()),
        "late": pytest.approx(found.arrays["vog_late"].mean()),
    }
    assert "K = 7 looks (after epochs 0, 1, ..., 6)" in means[""].detail
    assert "K = 3 looks (after epochs 4, 5, 6)" in means["late"].detail

    expected = {
        epoch: stats.spearmanr(deviation(stored[:epoch]), deviation(stored[: epoch + 1])).statistic
        for epoch in range(2, 7)
    }
    stability = rows(found, "vog_rank_stability")
    assert list(stability) == ["", *(f"epoch {epoch}" for epoch in range(7))]
    for epoch, value in expected.items():
        assert stability[f"epoch {epoch}"].value == pytest.approx(value, abs=1e-3)
    assert stability[""].value == stability["epoch 6"].value
    assert all(np.isnan(stability[f"epoch {epoch}"].value) for epoch in (0, 1))
    with (tmp_path / "curves" / "metrics.csv").open() as file:
        logged = [float(row["vog/rank_stability"]) for row in csv.DictReader(file)]
    assert logged == pytest.approx(list(expected.values()), abs=1e-3)

    assert np.array_equal(found.arrays["vog_in_class"], class_normalised(found.arrays["vog"], probe()[1]))
    assert found.arrays["images"].dtype == np.float16
    assert found.arrays["images"].shape == (40, 1, 8, 8)
    assert found.arrays["labels"].tolist() == probe()[1].tolist()
    assert all(len(array) == 40 for array in found.arrays.values())


def test_every_other_epoch_and_windows_by_steps(loader, make_trainer):
    vog = VarianceOfGradients(probe(), every=2)
    make_trainer(vog, max_epochs=-1, max_steps=60).fit(Module(), loader)
    means = rows(vog.measured(), "vog_mean")
    assert [means[part].detail.partition("(after ")[2].partition(")")[0] for part in ("", "early", "late")] == [
        "epochs 1, 3, 5",
        "epochs 1",
        "epochs 5",
    ]
    assert np.isnan(means["early"].value)
    assert np.isnan(vog.measured().arrays["vog_early"]).all()


class Stop(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = trainer.current_epoch == 2


def test_an_endless_training_has_no_windows(loader, make_trainer):
    vog = VarianceOfGradients(probe())
    make_trainer(vog, Stop(), max_epochs=-1).fit(Module(), loader)
    found = vog.measured()
    assert np.isfinite(found.arrays["vog"]).all()
    assert np.isnan(found.arrays["vog_early"]).all()
    assert np.isnan(found.arrays["vog_late"]).all()
    assert "K = 0 looks (after epochs none)" in rows(found, "vog_mean")["late"].detail


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_loader_is_used_whole(shuffled, loader, make_trainer):
    images, labels = probe()
    given = torch.utils.data.DataLoader(list(zip(images, labels, strict=True)), batch_size=16, shuffle=shuffled)
    vog = VarianceOfGradients(given)
    make_trainer(vog, max_epochs=1).fit(Module(), loader)
    assert sorted(vog.measured().arrays["labels"].tolist()) == sorted(labels.tolist())


@pytest.mark.parametrize("at_epoch_end", [True, False])
def test_a_resumed_run_is_the_whole_run_bit_for_bit(at_epoch_end, make_trainer, tmp_path):
    """Saved after training epochs, and saved in the validation before the callback has looked."""

    class Plain(Module):
        def forward(self, x):
            return settings.Module.forward(self, x.flatten(1))

    def fit(ckpt=None):
        vog = VarianceOfGradients(probe())
        keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=at_epoch_end)
        trainer = make_trainer(GradualPruning(0.9), vog, keep, max_epochs=6, enable_checkpointing=True)
        trainer.fit(Plain(), settings.batches(), settings.batches(), ckpt_path=ckpt, **SAFE)
        return vog

    whole = fit()
    again = fit(tmp_path / "epoch=2.ckpt")
    assert repr(again.measured().records) == repr(whole.measured().records)
    for name, array in whole.measured().arrays.items():
        assert np.array_equal(array, again.measured().arrays[name]), name
    state, other = whole.state_dict(), again.state_dict()
    assert state["plan"] == other["plan"]
    for name, held in state["following"].items():
        assert held["count"] == other["following"][name]["count"]
        assert torch.equal(held["mean"], other["following"][name]["mean"])
        assert torch.equal(held["squares"], other["following"][name]["squares"])


@pytest.mark.parametrize("changed", [{"every": 2}, {"window": 0.5}, {"probe": probe(41)}])
def test_changed_arguments_on_resume_are_refused(changed, loader, make_trainer, tmp_path):
    trainer = make_trainer(VarianceOfGradients(probe()), max_epochs=1)
    trainer.fit(Module(), loader)
    trainer.save_checkpoint(tmp_path / "end.ckpt", weights_only=False)
    vog = VarianceOfGradients(**{"probe": probe(), **changed})
    with pytest.raises(SparsityError, match="resume with the same images in the same order"):
        make_trainer(vog, max_epochs=2).fit(Module(), loader, ckpt_path=tmp_path / "end.ckpt", **SAFE)


def test_a_second_training_forgets_and_a_longer_one_goes_on(loader, make_trainer):
    vog, model = VarianceOfGradients(probe()), Module()
    trainer = make_trainer(vog, max_epochs=2)
    trainer.fit(model, loader)
    trainer.fit_loop.max_epochs = 4
    trainer.fit(model, loader)
    assert list(rows(vog.measured(), "vog_rank_stability")) == ["", *(f"epoch {epoch}" for epoch in range(4))]
    make_trainer(vog, max_epochs=2).fit(Module(), loader)
    assert list(rows(vog.measured(), "vog_rank_stability")) == ["", "epoch 0", "epoch 1"]


class Manual(Module):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        self.optimizers().zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        self.optimizers().step()


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (Module, {"precision": "bf16-mixed"}),
        (Module, {"precision": "16-true"}),
        (Module, {"accumulate_grad_batches": 4, "gradient_clip_val": 0.1}),
        (Module, {"fast_dev_run": 2, "max_epochs": None}),
        (Manual, {}),
    ],
)
def test_other_trainers(kind, arguments, loader, make_trainer):
    vog = VarianceOfGradients(probe())
    make_trainer(vog, **arguments).fit(kind(), loader, loader)
    scores = vog.measured().arrays["vog"]
    assert np.isnan(scores).all() if "fast_dev_run" in arguments else (scores > 0).all()


def test_a_compiled_model_gets_no_further_graph(loader, make_trainer):
    class Compiled(Module):
        def __init__(self, backend):
            super().__init__()
            self.body = torch.compile(self.body, backend=backend)

    def graphs(*callbacks):
        torch._dynamo.reset()
        counter = CompileCounter()
        make_trainer(*callbacks, max_epochs=2).fit(Compiled(counter), loader)
        return counter.frame_count

    assert graphs(VarianceOfGradients(probe())) == graphs() > 0


class Ranks(Callback):
    """Every rank writes what it has seen."""

    def __init__(self, vog, folder):
        self.vog, self.folder = vog, folder

    def on_train_end(self, trainer, pl_module):
        stability = float(trainer.callback_metrics["vog/rank_stability"])
        looks = [len(self.vog.state_dict()["looks"]["whole"]), stability]
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(looks))


def test_two_ranks_log_what_one_of_them_has_looked_at(loader, make_trainer, tmp_path):
    vog = VarianceOfGradients(probe())
    trainer = make_trainer(vog, Ranks(vog, tmp_path), accelerator="cpu", devices=2, strategy="ddp_fork")
    trainer.fit(Module(), loader)
    (first, stability), (second, logged) = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert (first, second) == (4, 0)
    assert logged == stability
    assert -1.0 <= stability <= 1.0


def test_without_a_probe_it_takes_the_data_modules_training_images(make_trainer):
    data = ImageData("digits", shape=(1, 8, 8), classes=10, mean=[0.3], std=[0.4])
    vog = VarianceOfGradients(images=50)
    make_trainer(vog, max_epochs=2).fit(Module(), datamodule=data)
    images, labels = data.split("train", 50)
    found = vog.measured().arrays
    assert found["labels"].tolist() == labels.tolist()
    assert np.array_equal(found["images"], images.half().numpy())


class Untrained(Module):
    def training_step(self, batch, batch_idx):
        raise AssertionError("training has started")


class Other(LightningDataModule):
    def train_dataloader(self):
        return settings.batches()


@pytest.mark.parametrize(
    ("vog", "message"),
    [
        (VarianceOfGradients(), r"probe=None .*write probe=\(images, labels\)"),
        (VarianceOfGradients(probe()[0]), r"data is a Tensor, not images and labels: write \(images, labels\)"),
        (VarianceOfGradients((probe()[0] * 2, probe()[1])), r"images lie in \[0, 2\]"),
        (VarianceOfGradients((probe()[0], probe()[1] + 1)), "the model has 10 classes"),
        (VarianceOfGradients((torch.rand(4, 1, 9, 9), torch.zeros(4).long())), "mat1 and mat2"),
        (VarianceOfGradients(probe(), mean=[0.1, 0.2]), "mean has 2 channels and the images have 1"),
        (VarianceOfGradients(probe(), forward=lambda model, x: model(x.flatten(1)).softmax(1)), "gives probabilities"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_training(vog, message, make_trainer):
    with pytest.raises((SparsityError, RuntimeError), match=message):
        make_trainer(vog).fit(Untrained(), datamodule=Other())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": 0}, "images=0 is not an integer of at least 1: write 256"),
        ({"every": 0.5}, "every=0.5 is not an integer of at least 1: write 1"),
        ({"batch_size": True}, "batch_size=True"),
        ({"window": 0.6}, r"window=0.6 is not in \(0, 0.5\]: write 0.3"),
        ({"window": 30}, "window=30 .*write 0.3 for 30 percent"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(SparsityError, match=message):
        VarianceOfGradients(probe(), **arguments)


def test_before_a_training_there_is_nothing_and_a_copy_holds_what_was_seen(loader, make_trainer):
    vog = VarianceOfGradients(probe())
    with pytest.raises(SparsityError, match="no epoch has been looked at"):
        vog.measured()
    make_trainer(vog, max_epochs=3).fit(Module(), loader)
    copied = copy.deepcopy(vog)
    make_trainer(vog, max_epochs=1).fit(Module(seed=1), loader)
    assert len(rows(copied.measured(), "vog_rank_stability")) == 4
