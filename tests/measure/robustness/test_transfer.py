"""Transfer: closed forms of linear models, and images that do not belong together."""

import numpy as np
import pytest
import torch
from torch import nn

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure.robustness.balls import distance
from lightning_sparse.measure.robustness.transfer import craft, measure_transfer
from lightning_sparse.statistics.intervals import wilson


def linear(*weights):
    """Two classes of four pixels: the second's logit is ``weights @ pixels - 0.5 sum(weights)``, the first's zero."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    row = torch.tensor(weights)
    model[1].weight.data = torch.stack([torch.zeros(4), row])
    model[1].bias.data = torch.stack([torch.zeros(()), -row.sum() / 2])
    return model


@pytest.fixture
def pixels():
    generator = torch.Generator().manual_seed(0)
    images = 0.3 + 0.4 * torch.rand(40, 1, 2, 2, generator=generator)
    return images, torch.randint(0, 2, (40,), generator=generator)


def test_of_a_linear_model_every_image_goes_to_its_worst_corner(pixels):
    """Right or wrong, broken or not: all get there, and stay."""
    images, labels = pixels
    model = linear(2.0, -1.0, 0.5, -3.0)
    towards_second = torch.tensor([1.0, -1.0, 1.0, -1.0]).view(1, 1, 2, 2)
    worst = images + 0.1 * towards_second * torch.where(labels == 0, 1.0, -1.0).view(-1, 1, 1, 1)
    assert torch.allclose(craft(model, pixels, eps=0.1), worst, atol=1e-6)
    assert torch.allclose(craft(model, pixels, eps=0.1, batch_size=7, seed=5), worst, atol=1e-6)


def test_in_l2_it_goes_along_the_weights(pixels):
    images, labels = pixels
    direction = torch.tensor([2.0, -1.0, 0.5, -3.0])
    direction = direction / direction.norm() * torch.where(labels == 0, 1.0, -1.0).view(-1, 1)
    moved = (craft(linear(2.0, -1.0, 0.5, -3.0), pixels, eps=0.2, norm="L2") - images).flatten(1)
    assert bool(((moved * direction).sum(dim=1) > 0.96 * 0.2).all())  # 0.2 is the most that any change in the ball does


def test_an_attack_moves_only_models_that_look_at_the_same_pixels(pixels):
    """One model looks at the first two pixels, one at the last two: neither's attack moves the other. One sees all."""
    images, labels = pixels
    models = {
        "left": linear(1.0, 1.0, 0.0, 0.0),
        "right": linear(0.0, 0.0, 1.0, 1.0),
        "all": linear(1.0, 1.0, 1.0, 1.0),
    }
    sources = {name: craft(model, pixels, eps=0.05) for name, model in models.items()}
    accuracy = {
        (row.condition, target): row.value
        for target, model in models.items()
        for row in measure_transfer(sources, model, pixels, eps=0.05).records
    }

    def right(target, push):
        moved = images.flatten(1) + 0.05 * push * torch.where(labels == 0, 1.0, -1.0).view(-1, 1)
        said = (moved @ target > target.sum() / 2).long()
        return (said == labels).float().mean().item()

    sees = {"left": torch.tensor([1.0, 1, 0, 0]), "right": torch.tensor([0, 0, 1.0, 1]), "all": torch.ones(4)}
    for source, target in accuracy:
        # Where the source sees nothing the gradient is zero and its random start remains: it is not this test's.
        if (source, target) not in (("left", "right"), ("right", "left"), ("left", "all"), ("right", "all")):
            assert accuracy[source, target] == pytest.approx(right(sees[target], sees[source])), (source, target)
    assert accuracy["all", "left"] == accuracy["left", "left"]
    assert accuracy["left", "all"] > accuracy["all", "all"]


def test_rows_of_a_measurement(digits):
    data = (digits.images, digits.labels)
    sources = {"own": craft(digits.model, data, eps=2 / 16), "none": digits.images}
    found = measure_transfer(sources, digits.model, data, eps=2 / 16, batch_size=64)
    digits.model.eval()
    for record, (name, adversarial) in zip(found.records, sources.items(), strict=True):
        with torch.no_grad():
            right = (digits.model(adversarial).argmax(dim=1) == digits.labels).numpy()
        assert (record.metric, record.condition, record.eps, record.norm) == ("transfer_accuracy", name, 2 / 16, "Linf")
        assert record.value == right.mean()
        assert (record.low, record.high) == wilson(int(right.sum()), 150)
        assert np.array_equal(found.arrays[name], right)
    assert found.records[0].value < found.records[1].value - 0.3


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 2 / 16), ("L2", 1.0)])
def test_crafted_images_stay_in_their_ball_and_are_a_function_of_the_seed(digits, norm, eps):
    data = (digits.images, digits.labels)
    first, again, other = (craft(digits.model, data, eps=eps, norm=norm, steps=5, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert bool((distance(first, digits.images, norm) <= eps + 1e-5).all())
    assert 0 <= first.min() <= first.max() <= 1
    with torch.inference_mode():
        inside = craft(digits.model, (digits.images.clone(), digits.labels.clone()), eps=eps, norm=norm, steps=5)
    assert torch.equal(inside, first)


def test_images_that_do_not_belong_together_are_refused(digits):
    data = (digits.images, digits.labels)
    crafted = craft(digits.model, data, eps=0.1, steps=3)
    for sources, eps, said in [
        ({"a": crafted.flip(0)}, 0.1, "more than eps=0.1"),
        ({"a": crafted}, 0.05, "more than eps=0.05"),
        ({"a": crafted[:3]}, 0.1, r"shape \(3, 1, 8, 8\)"),
        ({"a": torch.full_like(crafted, torch.nan)}, 0.1, "nan away"),
        ({}, 0.1, "names no source"),
        ({"a": crafted}, 0, "eps=0 is not in"),
    ]:
        with pytest.raises(SparsityError, match=said):
            measure_transfer(sources, digits.model, data, eps=eps)
