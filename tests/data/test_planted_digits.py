"""Planted digits: the truth is where the masks say, patches give away the class they should, and networks learn both."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_sparse.data.images import ImageData
from lightning_sparse.data.planted_digits import patches, plant, planted, shortcut_versions
from lightning_sparse.errors import SparsityError
from lightning_sparse.measure.stability.shortcut import measure_shortcut

SHAPE = {"shape": (1, 16, 16), "classes": 10, "mean": [0.0763], "std": [0.2299]}


def test_a_planted_digit_is_the_digit():
    from sklearn.datasets import load_digits

    digits = torch.tensor(load_digits().images[:4]).float() / 16
    made = plant(digits, torch.arange(4), torch.arange(4), torch.tensor([-1, 0, 5, 9]))
    corners = [(0, 0), (0, 8), (8, 0), (8, 8)]
    for i, (top, left) in enumerate(corners):
        opposite = (slice(8 - top, 16 - top), slice(8 - left, 16 - left))
        assert torch.equal(made.images[i, 0, top : top + 8, left : left + 8], digits[i])
        assert made.truth["quadrant"][i].sum() == 64
        assert made.truth["quadrant"][i, top : top + 8, left : left + 8].all()
        assert made.truth["patch"][i].sum() == (0 if i == 0 else 9)
        assert made.truth["patch"][i][opposite].sum() == made.truth["patch"][i].sum()
        assert (made.images[i, 0][made.truth["patch"][i]] == 1).all()
        outside = ~(made.truth["ink"][i] | made.truth["patch"][i])
        assert not made.images[i, 0][outside].any()
        assert (made.images[i, 0][made.truth["ink"][i]] > 0).all()


def test_ten_places_are_ten_patches_that_stay_in_their_quadrant():
    for corner in ((0, 0), (0, 8), (8, 0), (8, 8)):
        quadrant = torch.zeros(10, 16, 16, dtype=torch.bool)
        quadrant[:, corner[0] : corner[0] + 8, corner[1] : corner[1] + 8] = True
        found = patches(quadrant, torch.arange(10))
        assert found.flatten(1).sum(1).tolist() == [9] * 10
        assert len({one.numpy().tobytes() for one in found}) == 10
        opposite = torch.zeros(16, 16, dtype=torch.bool)
        opposite[8 - corner[0] : 16 - corner[0], 8 - corner[1] : 16 - corner[1]] = True
        assert not (found & ~opposite).any()


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_shortcut_agrees_with_the_class_in_its_share_of_training_and_by_chance_in_the_test(share):
    (train, test), (plain, plain_test) = planted(3, share), planted(3)
    assert torch.equal(train.labels, plain.labels)
    assert torch.equal(train.truth["ink"], plain.truth["ink"])
    if share == 0:
        assert set(train.truth) == set(test.truth) == {"quadrant", "ink"}
        return
    own = patches(train.truth["quadrant"], train.labels)
    agrees = (train.truth["patch"] == own).flatten(1).all(1)
    assert int(agrees.sum()) == round(share * 1437)
    assert not train.truth["patch"][~agrees].any()
    assert test.truth["patch"].flatten(1).any(1).all()
    by_chance = (test.truth["patch"] == patches(test.truth["quadrant"], test.labels)).flatten(1).all(1)
    assert 0.05 < by_chance.float().mean() < 0.15
    assert torch.equal(test.images * ~test.truth["patch"].unsqueeze(1), plain_test.images)


def test_quadrants_are_balanced_and_say_nothing_of_the_class():
    train, _ = planted()
    corner = train.truth["quadrant"][:, [0, 0, 8, 8], [0, 8, 0, 8]]
    for label in range(10):
        counts = corner[train.labels == label].sum(0)
        assert counts.max() - counts.min() <= 1


def test_the_data_module_gives_masks_in_the_order_of_its_images():
    data = ImageData("planted", shortcut=0.5, **SHAPE)
    assert {name: len(data.split(name)[1]) for name in ("train", "validation", "test")} == {
        "train": 1293,
        "validation": 144,
        "test": 360,
    }
    for name, most in (("train", None), ("validation", None), ("test", None), ("test", 50)):
        images, _ = data.split(name, most)
        truth = data.truth(name, most)
        assert torch.equal(truth["ink"] | truth["patch"], images[:, 0] > 0)
        assert (truth["quadrant"] | ~truth["ink"]).all()
    assert ImageData("digits", shape=(1, 8, 8), classes=10, mean=[0.3], std=[0.4]).truth("test") is None


def test_versions_differ_in_nothing_but_the_patch():
    _, test = planted(0, 0.9)
    versions = shortcut_versions(test.images, test.labels, test.truth["quadrant"], seed=1)
    absent = versions["absent"][0]
    assert torch.equal(absent, planted(0)[1].images)
    found = {name: (images - absent)[:, 0] > 0 for name, (images, _) in versions.items()}
    assert not found["absent"].any()
    assert torch.equal(found["aligned"], patches(test.truth["quadrant"], test.labels))
    assert found["conflicting"].flatten(1).sum(1).tolist() == [9] * 360
    assert not (found["conflicting"] == found["aligned"]).flatten(1).all(1).any()
    assert all(torch.equal(labels, test.labels) for _, labels in versions.values())


def test_a_network_that_was_shown_the_shortcut_relies_on_it_and_one_that_was_not_does_not():
    reliance = {}
    for share in (0.0, 0.9):
        data = ImageData("planted", shortcut=share, **SHAPE)
        images, labels = data.split("train")
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = nn.Sequential(nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10))
            optimizer = torch.optim.Adam(model.parameters(), 3e-3)
            for _ in range(8):
                for batch in torch.randperm(len(images)).split(64):
                    optimizer.zero_grad()
                    F.cross_entropy(model(images[batch]), labels[batch]).backward()
                    optimizer.step()
        test, labels = data.split("test")
        versions = shortcut_versions(test, labels, data.truth("test")["quadrant"])
        reliance[share] = {row.metric: row.value for row in measure_shortcut(model, versions).records}
    assert abs(reliance[0.0]["shortcut_reliance"]) < 0.2
    assert reliance[0.0]["shortcut_accuracy_absent"] > 0.75
    assert reliance[0.9]["shortcut_reliance"] > 0.7


def test_what_does_not_fit_is_refused():
    with pytest.raises(SparsityError, match=r"write 0\.9 for 90 percent"):
        planted(0, 90)
    with pytest.raises(SparsityError, match="only for planted, not for digits"):
        ImageData("digits", shortcut=0.5, shape=(1, 8, 8), classes=10, mean=[0.3], std=[0.4])
    with pytest.raises(SparsityError, match="give those of the planted digits"):
        shortcut_versions(torch.rand(2, 1, 8, 8), torch.zeros(2).long(), torch.ones(2, 8, 8, dtype=torch.bool))


@pytest.mark.parametrize(
    ("argument", "value", "says"),
    [
        (
            "digits",
            torch.zeros(2, 9, 9),
            r"digits is torch.float32 \(2, 9, 9\), not floating point of shape \(n, 8, 8\)",
        ),
        ("digits", None, "digits is a NoneType"),
        ("labels", torch.zeros(3, dtype=torch.long), r"labels is torch.int64 \(3,\), not integers of shape \(2,\)"),
        ("quadrants", torch.tensor([0, 4]), r"quadrants reach from 0 to 4: give integers in \[0, 3\]"),
        ("places", torch.tensor([-2, 0]), r"places reach from -2 to 0: give integers in \[-1, 9\]"),
        ("places", [0, 1], "places is a list"),
    ],
)
def test_what_cannot_be_planted_is_refused(argument, value, says):
    right = {"digits": torch.ones(2, 8, 8), "labels": torch.tensor([7, 1]), "quadrants": torch.tensor([0, 3])}
    plant(**right)
    with pytest.raises(SparsityError, match=says):
        plant(**right | {argument: value})
