"""Shortcut reliance of models whose reliance is known: one reads only the cue, one never, one if it can."""

import numpy as np
import pytest
import torch
from torch import nn

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure.stability.shortcut import measure_shortcut
from lightning_sparse.statistics.intervals import wilson

LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])


def image(cue, content):
    """(n, 1, 2, 3): the first row is the cue of a class, the second the content."""
    rows = torch.zeros(len(content), 1, 2, 3)
    for i, (first, second) in enumerate(zip(cue, content, strict=True)):
        if first is not None:
            rows[i, 0, 0, first] = 1.0
        rows[i, 0, 1, second] = 1.0
    return rows


def versions(labels):
    own = labels.tolist()
    other = [(label + 1) % 3 for label in own]
    cues = {"aligned": own, "absent": [None] * len(own), "conflicting": other}
    return {name: (image(cue, own), labels) for name, cue in cues.items()}


def reader(cue, content):
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3, bias=False))
    model[1].weight.data = 5 * torch.cat([cue * torch.eye(3), content * torch.eye(3)], dim=1)
    return model


@pytest.mark.parametrize(
    ("weights", "expected"),
    [((1.0, 0.0), (1.0, 0.4, 0.0, 1.0)), ((0.0, 1.0), (1.0, 1.0, 1.0, 0.0)), ((2.0, 1.0), (1.0, 1.0, 0.0, 1.0))],
    ids=["only the cue", "never the cue", "the cue first"],
)
def test_known_models(weights, expected):
    measured = measure_shortcut(reader(*weights), versions(LABELS))
    rows = {row.metric: row for row in measured.records}
    assert [row.value for row in measured.records] == pytest.approx(expected)
    assert list(rows) == [
        "shortcut_accuracy_aligned",
        "shortcut_accuracy_absent",
        "shortcut_accuracy_conflicting",
        "shortcut_reliance",
    ]
    absent = rows["shortcut_accuracy_absent"]
    assert (absent.low, absent.high) == wilson(round(10 * expected[1]), 10)


def test_reliance_is_the_mean_of_single_images_and_its_interval_is_theirs():
    data = versions(LABELS)
    # In four images the content outweighs a conflicting cue.
    loud = data["conflicting"][0].clone()
    loud[:4, 0, 0] *= 0.4
    measured = measure_shortcut(reader(2.0, 1.0), data | {"conflicting": (loud, LABELS)})
    row = measured.records[-1]
    differences = np.array([0.0] * 4 + [1.0] * 6)
    half = 1.959964 * differences.std(ddof=1) / np.sqrt(10)
    assert (row.value, row.low, row.high) == pytest.approx((0.6, 0.6 - half, 0.6 + half))
    assert measured.arrays["prediction_conflicting"][:4].tolist() == LABELS[:4].tolist()
    assert (measured.arrays["prediction_conflicting"][4:] != LABELS[4:].numpy()).all()


def test_versions_that_do_not_fit_are_refused():
    data = versions(LABELS)
    with pytest.raises(SparsityError, match="give a dict of aligned, absent, conflicting"):
        measure_shortcut(reader(1.0, 1.0), {"aligned": data["aligned"]})
    other = (data["absent"][0], LABELS.roll(1))
    with pytest.raises(SparsityError, match="labels of 'absent'"):
        measure_shortcut(reader(1.0, 1.0), data | {"absent": other})
