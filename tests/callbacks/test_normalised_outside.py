"""Images that the loader normalises are attacked as pixels, and the module gets normalised ones."""

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from advised import call_in
from lightning_sparse import AdversarialTraining, RobustnessMonitor, SparsityError

MEAN, STD = [0.5, 0.4, 0.3], [0.25, 0.2, 0.4]
SHIFT, SCALE = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))


class Colours(LightningModule):
    """A small classifier of normalised images, or, with ``inside``, of pixels that it normalises itself."""

    def __init__(self, inside=False):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(48, 32), nn.Tanh(), nn.Linear(32, 4))
        self.inside, self.seen = inside, []

    def forward(self, images):
        return self.net((images - SHIFT) / SCALE if self.inside else images)

    def training_step(self, batch, _):
        images, labels = batch
        self.seen.append(images.clone())
        return nn.functional.cross_entropy(self(images), labels)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.05)


def colours(normalised):
    torch.manual_seed(1)
    labels = torch.arange(96) % 4
    pixels = (0.8 * torch.rand(96, 3, 4, 4) + 0.05 * labels.view(-1, 1, 1, 1)).clamp(0, 1)
    return TensorDataset((pixels - SHIFT) / SCALE if normalised else pixels, labels)


def fit(make_trainer, callback, *, inside=False, epochs=1, data=None):
    model = Colours(inside)
    make_trainer(callback, max_epochs=epochs).fit(model, DataLoader(data or colours(not inside), 32))
    return model


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.1), ("L2", 0.5)])
@pytest.mark.parametrize("steps", [1, 3])
def test_the_images_trained_on_are_those_of_a_module_that_normalises_inside(norm, eps, steps, make_trainer):
    attack = {"eps": eps, "steps": steps, "norm": norm}
    outside = fit(make_trainer, AdversarialTraining(**attack, mean=MEAN, std=STD))
    inside = fit(make_trainer, AdversarialTraining(**attack), inside=True)
    assert len(outside.seen) == 3
    for normalised, pixels in zip(outside.seen, inside.seen, strict=True):
        torch.testing.assert_close(normalised * SCALE + SHIFT, pixels, rtol=0, atol=2e-5)
    clean = torch.stack([image for image, _ in colours(normalised=False)][:32])
    moved = inside.seen[0] - clean
    assert moved.abs().max() > 0.05
    assert outside.seen[0].min() < -1  # normalised, not pixels


def test_the_robust_accuracy_is_that_of_a_module_that_normalises_inside(make_trainer):
    monitor = RobustnessMonitor(0.05, data=colours(True)[:], mean=MEAN, std=STD)
    fit(make_trainer, monitor, epochs=4)
    of_pixels = RobustnessMonitor(0.05, data=colours(False)[:])
    fit(make_trainer, of_pixels, inside=True, epochs=4)
    assert monitor.rows() == of_pixels.rows()
    assert 0 < monitor.rows()[-1]["robust_accuracy"] < monitor.rows()[-1]["clean_accuracy"]


@pytest.mark.parametrize("kind", [AdversarialTraining, RobustnessMonitor])
def test_without_them_it_is_refused_before_training_and_what_the_message_says_is_taken(kind, make_trainer):
    own = {"data": colours(True)[:]} if kind is RobustnessMonitor else {}
    model = Colours()
    with pytest.raises(SparsityError, match=r"images lie in \[-1\.9.*, not in \[0, 1\]") as error:
        make_trainer(kind(0.1, **own), max_epochs=1).fit(model, DataLoader(colours(True), 32))
    assert model.seen == []
    written = call_in(error, f"{kind.__name__}(...").replace("...", "0.1, **own")
    advised = eval(
        written.replace("[0.5, 0.5, 0.5]", "MEAN").replace("[0.25, 0.25, 0.25]", "STD"), globals() | locals()
    )
    assert len(fit(make_trainer, advised).seen) == 3


@pytest.mark.parametrize("kind", [AdversarialTraining, RobustnessMonitor])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"mean": [0.1] * 3, "std": STD},
            r"normalised with std=\[0.25.* and mean=\[0.1.* were pixels in \[.*, not in \[0, 1\]",
        ),
        ({"mean": MEAN}, r"images normalised with std=None and mean=\[0.5.* were pixels in"),
        ({"mean": [0.5], "std": [0.5]}, "mean has 1 channels and the images have 3"),
    ],
)
def test_statistics_that_do_not_give_pixels_are_refused_before_training(kind, settings, message, make_trainer):
    own = {"data": colours(True)[:]} if kind is RobustnessMonitor else {}
    model = Colours()
    with pytest.raises(SparsityError, match=message):
        make_trainer(kind(0.1, **own, **settings), max_epochs=1).fit(model, DataLoader(colours(True), 32))
    assert model.seen == []


@pytest.mark.parametrize("kind", [AdversarialTraining, RobustnessMonitor])
def test_pixels_that_are_said_to_be_normalised_are_refused_before_training(kind, make_trainer):
    own = {"data": colours(False)[:]} if kind is RobustnessMonitor else {}
    model = Colours(inside=True)
    with pytest.raises(SparsityError, match=r"images lie in .* so they are pixels, .*: leave mean and std out"):
        make_trainer(kind(0.1, **own, mean=MEAN, std=STD), max_epochs=1).fit(model, DataLoader(colours(False), 32))
    assert model.seen == []
    assert len(fit(make_trainer, kind(0.1, **own), inside=True).seen) == 3


def test_images_in_half_precision_are_recovered(make_trainer):
    normalised, labels = colours(True)[:]
    monitor = RobustnessMonitor(0.05, data=(normalised.bfloat16(), labels), mean=MEAN, std=STD)
    fit(make_trainer, monitor)
    assert monitor.rows()[0]["n"] == 96


def test_a_resumed_run_with_another_normalisation_is_refused(make_trainer):
    attack = AdversarialTraining(0.1, mean=MEAN, std=STD)
    again = AdversarialTraining(0.1)
    again.load_state_dict(attack.state_dict())
    with pytest.raises(SparsityError, match=r"mean=None, and the checkpoint was trained with mean=\[0.5"):
        again.on_train_start(None, None)
    before_there_were_any = {name: value for name, value in attack.state_dict().items() if name not in ("mean", "std")}
    again.load_state_dict(before_there_were_any)
    again.on_train_start(None, None)
