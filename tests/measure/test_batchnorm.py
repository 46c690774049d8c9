"""BatchNorm estimated anew: the population's statistics by hand, in any order, and nothing else touched."""

import copy

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure import as_classifier
from lightning_sparse.measure.accuracy import measure_accuracy
from lightning_sparse.measure.batchnorm import batchnorm_in_words, has_batchnorm, recalibrate_batchnorm
from lightning_sparse.models.classifier import Classifier
from lightning_sparse.models.networks import resnet20


def net():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


def some(n=60, seed=0):
    images = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return images, torch.arange(n) % 3


def maps(model, images):
    """What the first BatchNorm sees, (channels, numbers), in float64."""
    with torch.no_grad():
        seen = model[0](images).double()
    return seen.transpose(0, 1).flatten(1).numpy()


def test_in_one_batch_they_are_the_populations():
    model, (images, labels) = net(), some()
    assert recalibrate_batchnorm(model, (images, labels)) is True
    seen = maps(model, images)
    assert model[1].running_mean.numpy() == pytest.approx(seen.mean(axis=1), rel=1e-5)
    assert model[1].running_var.numpy() == pytest.approx(seen.var(axis=1, ddof=1), rel=1e-5)
    assert model[1].num_batches_tracked == 1


def test_in_many_batches_means_are_exact_and_variances_average():
    model, (images, labels) = net(), some()
    recalibrate_batchnorm(model, (images, labels), batch_size=15, seed=3)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(3))
    variances = [maps(model, images[part]).var(axis=1, ddof=1) for part in order.split(15)]
    assert model[1].running_mean.numpy() == pytest.approx(maps(model, images).mean(axis=1), rel=1e-5)
    assert model[1].running_var.numpy() == pytest.approx(np.mean(variances, axis=0), rel=1e-5)


def test_it_does_not_matter_that_the_images_come_class_by_class():
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(4, 2))
    shades = torch.cat([torch.zeros(500), torch.ones(500)]).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    recalibrate_batchnorm(model, (shades, shades[:, 0, 0, 0].long()), batch_size=100)
    assert model[0].running_var.item() == pytest.approx(0.25, rel=0.03)  # batch by batch in order it would be 0


def test_a_small_rest_does_not_count_as_a_full_batch():
    model, (images, labels) = net(), some(51)
    recalibrate_batchnorm(model, (images, labels), batch_size=50)  # 26 and 25, not 50 and 1
    halves = torch.randperm(51, generator=torch.Generator().manual_seed(0)).split(26)
    expected = np.mean([maps(model, images[half]).mean(axis=1) for half in halves], axis=0)
    assert model[1].running_mean.numpy() == pytest.approx(expected, rel=1e-5)
    flat = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 3))
    assert recalibrate_batchnorm(flat, (images, labels), batch_size=50)  # BatchNorm1d refuses a batch of 1


def test_an_odd_number_of_images_in_twos_leaves_no_image_alone():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4))  # which knows no variance of one image
    recalibrate_batchnorm(model, (torch.rand(5, 1, 2, 2), torch.zeros(5, dtype=torch.long)), batch_size=2)
    assert model[1].num_batches_tracked == 2


def test_only_the_first_so_many_images_of_a_loader():
    images, labels = some()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=16)
    one, two = net(), None
    two = copy.deepcopy(one)
    recalibrate_batchnorm(one, loader, most=40)
    recalibrate_batchnorm(two, (images[:40], labels[:40]))
    assert torch.equal(one[1].running_var, two[1].running_var)


def test_it_repairs_what_pruning_did_to_the_statistics(digits):
    model = copy.deepcopy(digits.model)
    model[1].running_mean.add_(3.0)  # stale
    stale = measure_accuracy(model, (digits.images, digits.labels)).records[0].value
    recalibrate_batchnorm(model, digits.calibration)
    repaired = measure_accuracy(model, (digits.images, digits.labels)).records[0].value
    assert stale < 0.6
    assert repaired > 0.9


class Wrapped(LightningModule):
    """A Lightning module with dropout, a frozen BatchNorm and one without running statistics."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(net(), nn.Dropout(), nn.BatchNorm1d(3, momentum=0.3))
        self.other = nn.BatchNorm1d(3, track_running_stats=False)
        self.fail = False

    def forward(self, images):
        logits = self.other(self.net(images))
        if self.fail:
            raise KeyError("planted")
        return logits


def test_all_else_is_as_it_was_even_after_an_exception():
    model, data = Wrapped(), some()
    model.net[2].eval()
    model(data[0]).sum().backward()

    def rest():
        buffers = [b for name, b in model.state_dict().items() if "running" not in name and "num_batches" not in name]
        return [t.clone() for t in (*buffers, *(p.grad for p in model.parameters()), torch.get_rng_state())]

    def modes():
        return [(m.training, getattr(m, "momentum", None)) for m in model.modules()]

    before, modes_before, statistics = rest(), modes(), copy.deepcopy(model.state_dict())
    model.fail = True
    with pytest.raises(KeyError, match="planted"):
        recalibrate_batchnorm(model, data)
    assert all(torch.equal(value, statistics[name]) for name, value in model.state_dict().items())
    model.fail = False
    buffer = model.net[2].running_mean
    with torch.inference_mode():
        assert recalibrate_batchnorm(model, data, batch_size=20)
    assert all(torch.equal(one, two) for one, two in zip(rest(), before, strict=True))
    assert modes() == modes_before
    assert model.net[2].running_mean is buffer
    assert not torch.equal(buffer, statistics["net.2.running_mean"])
    assert model.net[2].num_batches_tracked == 3
    model(data[0]).sum().backward()  # nothing of inference mode is left in the model


def test_a_lightning_classifier_and_a_resnet():
    pytest.importorskip("torchvision")
    model = Classifier(resnet20((3, 8, 8), 4), mean=[0.5] * 3, std=[0.25] * 3)
    images = torch.rand(40, 3, 8, 8)
    assert recalibrate_batchnorm(model, (images, torch.arange(40) % 4))
    with torch.no_grad():
        first = model.net[0]((images - model.mean) / model.std).transpose(0, 1).flatten(1)
    assert torch.allclose(model.net[1].running_mean, first.mean(1), atol=1e-5)
    # normalisation may also be outside the network
    outside = copy.deepcopy(model.net)
    recalibrate_batchnorm(as_classifier(outside, mean=[0.5] * 3, std=[0.25] * 3), (images, torch.arange(40) % 4))
    assert torch.allclose(outside[1].running_var, model.net[1].running_var)


def test_without_batchnorm_nothing_is_done_or_read():
    def unread():
        raise AssertionError("read")
        yield

    assert recalibrate_batchnorm(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), unread()) is False
    assert recalibrate_batchnorm(nn.BatchNorm2d(1, track_running_stats=False), unread()) is False


def test_in_words():
    without = nn.Sequential(nn.LayerNorm(3), nn.BatchNorm1d(3, track_running_stats=False))
    assert [has_batchnorm(model) for model in (net(), without)] == [True, False]
    assert batchnorm_in_words(has_batchnorm(without), 60) == "no BatchNorm"
    assert batchnorm_in_words(has_batchnorm(net())) == "BatchNorm as trained"
    found = recalibrate_batchnorm(net(), some())
    assert batchnorm_in_words(found, 60) == "BatchNorm statistics estimated anew on 60 training images"


def test_bad_input_is_refused_before_anything_changes():
    model = net()
    for data, arguments, message in [
        ((some()[0] * 255, some()[1]), {}, "images / 255"),
        ((some()[0][:1], some()[1][:1]), {}, "a variance needs 2"),
        (some(), {"batch_size": 1}, "batch_size=1"),
        (some(), {"most": 0}, "most=0"),
    ]:
        with pytest.raises(SparsityError, match=message):
            recalibrate_batchnorm(model, data, **arguments)
    assert model[1].num_batches_tracked == 0
    assert torch.equal(model[1].running_var, torch.ones(4))
