"""Locality, sharing, shifts and memory against numbers worked out by hand and an independent rewrite."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure import measure_biases
from lightning_sparse.measure.biases.locality import locality, radius
from lightning_sparse.measure.biases.sharing import centred, sharing, sharing_by_chance
from lightning_sparse.measure.biases.translation import shifted

DATA = torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3


def values(measured):
    return {record.metric.removeprefix("bias_"): record.value for record in measured.records}


def mlp(units=5):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, units), nn.ReLU(), nn.Linear(units, 3))


def quadrants():
    patches = torch.zeros(4, 4, 4)
    for unit, (top, left) in enumerate([(0, 0), (0, 2), (2, 0), (2, 2)]):
        patches[unit, top : top + 2, left : left + 2] = 1
    return patches


def test_four_patches_by_hand():
    # 2x2 patches: all pairs are neighbours; of the 240 ordered pairs of 4x4 pixels 84 are.
    assert locality(quadrants()) == pytest.approx(240 / 84)
    # Mean squared distance in a patch (8 * 1 + 4 * 2) / 12, of all pairs 2 * (1.25 + 1.25) * 16 / 15.
    assert radius(quadrants()) == pytest.approx(math.sqrt((16 / 12) / (80 / 15)))


def by_shuffling(energy, shuffles, seed=0):
    """Loops over pairs, and units really shuffled within each pixel: nothing in common with the library's sums."""
    rng = np.random.default_rng(seed)

    def neighbours_and_pairs(energy):
        near = pairs = 0.0
        for unit in energy:
            shares = unit / unit.sum() if unit.sum() else unit
            for place in np.argwhere(shares):
                for other in np.argwhere(shares):
                    if (place != other).any():
                        product = shares[tuple(place)] * shares[tuple(other)]
                        pairs += product
                        near += product * (np.abs(place - other).max() == 1)
        return np.array([near, pairs])

    shares = energy / energy.sum((1, 2), keepdims=True)
    nulls = np.zeros(2)
    for _ in range(shuffles):
        mixed = np.stack([rng.permutation(column) for column in shares.reshape(len(shares), -1).T], 1)
        mixed = mixed.reshape(shares.shape)
        for unit in mixed:  # as they are: a shuffled unit need not sum to 1
            flat = [(place, unit[tuple(place)]) for place in np.argwhere(unit)]
            for i, (place, a) in enumerate(flat):
                for other, b in flat[i + 1 :]:
                    nulls += np.array([a * b * (np.abs(place - other).max() == 1), a * b])
    near, pairs = neighbours_and_pairs(energy)
    return (near / pairs) / (nulls[0] / nulls[1])


def test_equals_loops_over_pairs_and_real_shuffles():
    rng = np.random.default_rng(1)
    energy = rng.random((6, 4, 5)) * (rng.random((6, 4, 5)) < 0.5)
    energy[:3, :2] *= 5  # some units look up
    assert locality(torch.tensor(energy)) == pytest.approx(by_shuffling(energy, 200), rel=0.03)


@pytest.mark.parametrize("density", [0.5, 0.05])
def test_a_random_mask_is_at_chance_even_where_some_pixels_are_popular_and_some_units_poor(density):
    generator = torch.Generator().manual_seed(0)
    popular = torch.linspace(0.2, 1.8, 14 * 14).view(14, 14)[torch.randperm(14, generator=generator)]
    found = []
    for _ in range(20):
        rich = 2 * torch.rand(100, 1, 1, generator=generator)
        found.append(locality(torch.rand(100, 14, 14, generator=generator) < density * rich * popular))
    mean, error = np.mean(found), np.std(found, ddof=1) / math.sqrt(len(found))
    assert abs(mean - 1) < 3 * error + 0.005


def test_units_without_pairs_have_no_locality():
    assert math.isnan(locality(torch.zeros(3, 4, 4)))
    assert math.isnan(locality(torch.eye(3).view(3, 1, 3)))
    dense = torch.ones(4, 5, 5)
    assert locality(dense) == pytest.approx(1.0)


def test_shifted_copies_share_and_constant_and_dead_filters_are_left_out():
    filters = torch.zeros(5, 1, 6, 6)
    shape = torch.tensor([[1.0, -2.0], [3.0, -2.0]])  # its mean is 0
    for unit, (top, left) in enumerate([(0, 0), (1, 3), (4, 4)]):
        filters[unit, 0, top : top + 2, left : left + 2] = shape
    filters[3] = 0.7  # constant; the last is dead
    kept = centred(filters, filters != 0)
    assert len(kept) == 3
    assert sharing(kept) == pytest.approx(1.0, abs=1e-6)
    assert sharing_by_chance(kept, torch.Generator().manual_seed(0)) < 1
    assert math.isnan(sharing(kept[:1]))


def test_a_whole_shift_moves_pixels_and_a_model_of_the_mean_feels_none():
    images = torch.rand(2, 3, 5, 6)
    moved = shifted(images, 1.0, 2.0)
    assert torch.allclose(moved[..., 1:, 2:], images[..., :-1, :-2], atol=1e-5)
    assert moved[..., 0, :].abs().max() < 1e-5
    blank = (torch.zeros(4, 1, 6, 6), torch.tensor([0, 1, 2, 0]))
    assert values(measure_biases(mlp(), blank))["translation_error"] == 0


def test_translation_error_is_the_derivative_of_the_softmax(digits):
    found = measure_biases(digits.model, (digits.images[:8], digits.labels[:8]), calibration=digits.calibration)
    from lightning_sparse.measure import fit_temperature

    model = digits.model.eval()
    with torch.no_grad():
        temperature = fit_temperature(model(digits.calibration[0]), digits.calibration[1])
    image = digits.images[:1].double()
    model = model.double()
    moves = [(1e-3, 0.0), (0.0, 1e-3)]
    with torch.no_grad():
        ahead = [torch.softmax(model(shifted(image, *move)) / temperature, 1) for move in moves]
        here = torch.softmax(model(image) / temperature, 1)
    digits.model.float()
    expected = sum(((there - here) / 1e-3).square().sum() for there in ahead).sqrt().item()
    assert found.arrays["translation_error"][0] == pytest.approx(expected, rel=0.05, abs=1e-4)


def test_rows_of_a_masked_network_count_the_living_and_leave_no_trace():
    net = mlp()
    mask = torch.rand(5, 36) < 0.3
    mask[2] = False
    net[1].weight.data *= mask
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    found = measure_biases(net, DATA, masks={"1.weight": mask})
    assert values(found)["living_units"] == 4
    assert values(found)["locality_mask"] == pytest.approx(locality(mask.view(5, 6, 6)))
    assert "4 of 5 units live" in found.records[0].detail
    assert found.arrays["first_layer"].shape == (5, 1, 6, 6)
    assert (found.arrays["first_layer"][0] != 0).sum() == mask.sum(1).max()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert not net[1]._forward_hooks
    assert all(p.requires_grad for p in net.parameters())


class Reordered(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(36, 3)

    def forward(self, x):
        return self.layer(x.flatten(1).flip(1))


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (
            nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(32, 3)),
            "is a convolution, which is local and shared",
        ),
        (Reordered(), "does not read the pixels of an image, each once and in order"),
        (nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(9, 3)), "does not read the pixels"),
    ],
)
def test_where_connections_have_no_places_the_rows_say_so(net, words):
    found = measure_biases(net, DATA)
    assert math.isnan(values(found)["locality_mask"])
    assert math.isnan(values(found)["sharing_excess"])
    assert words in found.records[0].detail
    assert values(found)["translation_error"] > 0


class Leaky(nn.Module):
    """A state that is ``keep`` of the one before, and the sum of a row of pixels."""

    def __init__(self, keep):
        super().__init__()
        self.state = nn.Linear(3, 3, bias=False)
        self.state.weight.data = keep * torch.eye(3)

    def forward(self, x):
        state = x[:, 0, 0, :3] * 0
        for row in x[:, 0].unbind(1):
            state = self.state(state) + row[:, :3]
        return state


@pytest.mark.parametrize(("keep", "length"), [(0.5, 2), (0.8, 5), (1.0, 6)])
def test_a_leaky_state_is_remembered_as_long_as_its_leak_says(keep, length):
    found = measure_biases(Leaky(keep), (torch.rand(12, 1, 7, 6), DATA[1]))
    reach = found.arrays["memory"]
    assert reach == pytest.approx(keep ** np.arange(len(reach)))
    (row,) = [row for row in found.records if row.metric == "bias_memory_length"]
    assert row.value == (length if keep < 1 else len(reach))
    assert row.detail.startswith("at least") == (keep == 1.0)


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.RNN])
def test_torchs_recurrent_layers_are_run_step_by_step(kind):
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.rows, self.head = kind(6, 4, batch_first=True), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.rows(x[:, 0])[0][:, -1])

    torch.manual_seed(0)
    reach = measure_biases(Rows(), DATA).arrays["memory"]
    assert reach.shape == (6,)
    assert reach[0] == 1
    assert (np.diff(reach) < 0).all()


def test_masks_that_do_not_fit_are_refused():
    with pytest.raises(SparsityError, match=r"masks=3 are not masks by parameter name: write masks=\{"):
        measure_biases(mlp(), DATA, masks=3)
