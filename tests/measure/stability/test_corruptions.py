"""Corruptions against scipy and by hand, and the accuracy under them against a plain loop."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure.stability.corruptions import CORRUPTIONS, corrupt, measure_corruptions
from lightning_sparse.statistics.intervals import mean_interval, wilson

ALL = [(name, severity) for name in CORRUPTIONS for severity in (1, 2, 3)]


def photographs(n=40, side=16, channels=1):
    """Smooth images with black borders, so that nothing moves out and interpolation has something to do."""
    noise = np.random.default_rng(0).random((n, channels, side, side))
    smooth = ndimage.gaussian_filter(noise, (0, 0, 1, 1))
    smooth[..., :4, :] = smooth[..., -4:, :] = smooth[..., :4] = smooth[..., -4:] = 0
    return torch.tensor(smooth, dtype=torch.float32)


@pytest.mark.parametrize(("name", "severity"), ALL)
@pytest.mark.parametrize("shape", [(3, 1, 2, 2), (3, 3, 8, 12), (3, 2, 1, 4)])
def test_pixels_stay_pixels_and_the_input_stays_as_it_was(name, severity, shape):
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    corrupted = corrupt(images, name, severity)
    assert corrupted.shape == images.shape
    assert corrupted.dtype == torch.float32
    assert 0 <= corrupted.min() <= corrupted.max() <= 1
    assert torch.equal(images, before)


@pytest.mark.parametrize(("name", "severity"), ALL)
def test_random_numbers_are_a_function_of_the_seed(name, severity):
    images = photographs()
    state = torch.get_rng_state()
    first, again, other = (corrupt(images, name, severity, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name in ("blur", "contrast", "brightness"))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("severity", "strength"), [(1, 0.1), (2, 0.2), (3, 0.3)])
def test_gaussian_noise_has_its_deviation(severity, strength):
    corrupted = corrupt(torch.full((100, 1, 20, 20), 0.5), "gaussian_noise", severity)
    # Half of a normal distribution lies within 0.6745 deviations, whatever clamping does to its tails.
    assert (corrupted - 0.5).abs().median().item() == pytest.approx(0.6745 * strength, rel=0.02)


@pytest.mark.parametrize(("severity", "share"), [(1, 0.05), (2, 0.1), (3, 0.2)])
def test_salt_and_pepper_strike_whole_pixels_half_each(severity, share):
    corrupted = corrupt(torch.full((100, 3, 20, 20), 0.5), "salt_and_pepper", severity)
    for value in (0.0, 1.0):
        struck = corrupted == value
        assert struck.float().mean().item() == pytest.approx(share / 2, rel=0.05)
        assert torch.equal(struck.all(dim=1), struck.any(dim=1))
    milder = corrupt(torch.full((100, 3, 20, 20), 0.5), "salt_and_pepper", 1) != 0.5
    assert bool((corrupted != 0.5)[milder].all())


@pytest.mark.parametrize(("severity", "share"), [(1, 0.03), (2, 0.06), (3, 0.09)])
def test_blur_is_scipys(severity, share):
    images = torch.rand(5, 2, 30, 20, generator=torch.Generator().manual_seed(0))
    sigma = share * 20
    reach = int(np.ceil(3 * sigma))
    expected = ndimage.gaussian_filter(images.double().numpy(), (0, 0, sigma, sigma), mode="mirror", radius=reach)
    assert corrupt(images, "blur", severity).numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("severity", "kept", "added"), [(1, 0.6, 0.15), (2, 0.4, 0.3), (3, 0.2, 0.45)])
def test_contrast_and_brightness_by_hand(severity, kept, added):
    images = torch.tensor([[0.0, 1.0], [0.2, 0.6]]).view(1, 2, 1, 2)  # channel means 0.5 and 0.4
    low = torch.tensor([[-0.5, 0.5], [-0.2, 0.2]]).view(1, 2, 1, 2) * kept + torch.tensor([0.5, 0.4]).view(1, 2, 1, 1)
    assert torch.allclose(corrupt(images, "contrast", severity), low)
    bright = torch.tensor([added, 1.0, 0.2 + added, min(1.0, 0.6 + added)])
    assert torch.allclose(corrupt(images, "brightness", severity).flatten(), bright)


@pytest.mark.parametrize(("severity", "degrees"), [(1, 10), (2, 20), (3, 30)])
def test_rotation_is_scipys_to_either_side(severity, degrees):
    images = photographs()
    corrupted = corrupt(images, "rotation", severity).numpy()
    left, right = (
        ndimage.rotate(images.numpy(), sign * degrees, axes=(2, 3), reshape=False, order=1) for sign in (1, -1)
    )
    turned = [(np.abs(corrupted - side).max(axis=(1, 2, 3)) < 1e-4) for side in (left, right)]
    assert (turned[0] ^ turned[1]).all()
    assert 8 < turned[0].sum() < 32


@pytest.mark.parametrize(("severity", "share"), [(1, 0.04), (2, 0.08), (3, 0.12)])
def test_translation_is_scipys_in_four_directions(severity, share):
    images = photographs()
    corrupted = corrupt(images, "translation", severity).numpy()
    way = 16 * share
    ways = [(down, right) for down in (way, -way) for right in (way, -way)]
    moved = [ndimage.shift(images.numpy(), (0, 0, *by), order=1) for by in ways]
    found = np.array([np.abs(corrupted - one).max(axis=(1, 2, 3)) < 1e-4 for one in moved])
    assert (found.sum(axis=0) == 1).all()
    assert (found.sum(axis=1) >= 3).all()


@pytest.mark.parametrize(("severity", "side"), [(1, 2), (2, 3), (3, 4)])
def test_occlusion_is_a_black_square_somewhere_inside(severity, side):
    black = corrupt(torch.ones(400, 2, 8, 9), "occlusion", severity) == 0
    assert torch.equal(black[:, 0], black[:, 1])
    rows, columns = black[:, 0].any(dim=2), black[:, 0].any(dim=1)
    assert set(rows.sum(dim=1).tolist()) == set(columns.sum(dim=1).tolist()) == {side}
    assert torch.equal(black[:, 0], rows[:, :, None] & columns[:, None, :])
    first = rows.int().argmax(dim=1), columns.int().argmax(dim=1)
    assert set(first[0].tolist()) == set(range(8 - side + 1))
    assert set(first[1].tolist()) == set(range(9 - side + 1))


def test_accuracy_is_that_of_a_plain_loop(digits):
    measured = measure_corruptions(digits.model, (digits.images, digits.labels), batch_size=64, seed=3)
    *rows, average = measured.records
    assert [row.condition for row in rows] == [f"{name} {severity}" for name, severity in ALL]
    digits.model.eval()
    right = []
    for row, (name, severity) in zip(rows, ALL, strict=True):
        with torch.no_grad():
            hits = digits.model(corrupt(digits.images, name, severity, seed=3)).argmax(dim=1) == digits.labels
        right.append(hits.numpy())
        assert row.metric == "corruption_accuracy"
        assert row.value == hits.sum().item() / 150
        assert (row.low, row.high) == wilson(int(hits.sum()), 150)
    table = np.stack(right, axis=1)
    assert np.array_equal(measured.arrays["right"], table)
    assert (average.value, average.low, average.high) == mean_interval(table.mean(axis=1))
    assert average.value == pytest.approx(np.mean([row.value for row in rows]))


def test_a_condition_does_not_depend_on_company_or_batches(digits):
    data = (digits.images, digits.labels)
    all_of_them = measure_corruptions(digits.model, data).records
    alone = measure_corruptions(digits.model, data, corruptions=["occlusion"], severities=[2], batch_size=7).records[0]
    assert alone == next(row for row in all_of_them if row.condition == "occlusion 2")


def test_severities_are_ordered_and_every_corruption_bites(digits):
    rows = measure_corruptions(digits.model, (digits.images, digits.labels)).records
    values = {row.condition: row.value for row in rows if row.condition}
    with torch.no_grad():
        clean = (digits.model.eval()(digits.images).argmax(dim=1) == digits.labels).float().mean().item()
    for name in CORRUPTIONS:
        curve = [values[f"{name} {severity}"] for severity in (1, 2, 3)]
        assert curve == sorted(curve, reverse=True), name
        assert curve[2] < clean - 0.02, name


def test_a_loader_does_as_well_as_tensors_and_so_does_inference_mode(digits):
    settings = {"corruptions": ["rotation", "blur"], "severities": [3]}
    plain = measure_corruptions(digits.model, (digits.images, digits.labels), **settings).records
    loader = [(digits.images[:100], digits.labels[:100]), (digits.images[100:], digits.labels[100:])]
    assert measure_corruptions(digits.model, loader, **settings).records == plain
    with torch.inference_mode():
        data = (digits.images.clone(), digits.labels.clone())
        assert measure_corruptions(digits.model, data, **settings).records == plain


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"corruptions": ["rotaton"]}, "did you mean 'rotation'"),
        ({"corruptions": "rotation"}, "not a list of names"),
        ({"corruptions": []}, "not a list of names"),
        ({"severities": [0]}, "not from 1, 2, 3"),
        ({"severities": [True]}, "not from 1, 2, 3"),
        ({"severities": 2}, "not from 1, 2, 3"),
        ({"severities": []}, "not from 1, 2, 3"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(settings, said):
    with pytest.raises(SparsityError, match=said):
        measure_corruptions(nn.Flatten(), (torch.rand(2, 1, 2, 2), torch.tensor([0, 1])), **settings)
