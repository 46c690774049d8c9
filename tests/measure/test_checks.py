"""Anything but pixels, classes or logits is refused, with what to write instead."""

import pytest
import torch
from torch import nn

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure import check_images, check_logits

GOOD = torch.rand(4, 1, 8, 8)
LABELS = torch.tensor([0, 1, 2, 3])


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        (GOOD * 255, LABELS, "images / 255"),
        (GOOD * 2 - 1, LABELS, r"as_classifier\(model, mean="),
        ((GOOD * 255).byte(), LABELS, "uint8.*float"),
        (GOOD[:, 0], LABELS, "unsqueeze"),
        (GOOD[:0], LABELS[:0], "n >= 1"),
        (torch.full_like(GOOD, float("nan")), LABELS, "NaN"),
        (GOOD, LABELS - 1, "reach -1"),
        (GOOD, LABELS + 7, "reach 10, but the model has 10 classes"),
        (GOOD, LABELS.float(), "not integers"),
        (GOOD, LABELS[:3], r"not \(4,\)"),
        (GOOD, LABELS[:, None], r"not \(4,\): give one class number"),
        (GOOD, nn.functional.one_hot(LABELS), r"not \(4,\): write labels.argmax"),
        (GOOD * 16, LABELS, "if that is white"),
        (GOOD.flatten(1), LABELS, r"for features in \[0, 1\] write images\[:, :, None, None\]"),
        (GOOD.to("meta"), LABELS, "hold no plain numbers"),
        (GOOD.to_sparse(), LABELS, r"write images.to_dense\(\)"),
        (GOOD.numpy(), LABELS, "not a tensor"),
        (GOOD, [0, 1, 2, 3], "not a tensor"),
    ],
)
def test_what_is_not_pixels_or_classes_is_refused(images, labels, says):
    with pytest.raises(SparsityError, match=says):
        check_images(images, labels, classes=10)


def test_good_ones_pass():
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        check_images(GOOD.to(dtype).clamp(0, 1), LABELS, classes=4)
    check_images(GOOD, LABELS.to(torch.uint8))


@pytest.mark.parametrize(
    ("outputs", "says"),
    [
        ({"logits": GOOD}, r"a dict of 'logits' \(4, 1, 8, 8\), not logits: .*in place of"),
        ({"scores": GOOD[0, 0]}, r"model\(x\)\['scores'\]"),
        ((GOOD, GOOD), r"a tuple of 2.*model\(x\)\[\.\.\.\]"),
        ({}, r"a dict of nothing, not logits"),
        (None, r"a NoneType.*forward=lambda model, x: \.\.\."),
        (torch.zeros(4, 1), "pad"),
        (torch.zeros(4), r"shape \(4,\).*unsqueeze\(1\), \(1, 0\)"),
        (torch.zeros(4, 0), r"shape \(4, 0\)"),
        (GOOD, r"shape \(4, 1, 8, 8\)"),
        (torch.zeros(4, 3, dtype=torch.long), "argmax"),
        (torch.tensor([[0.0, float("nan")], [1.0, 2.0]]), "1 of 2"),
        (torch.tensor([[0.0, float("inf")], [1.0, 2.0]]), "1 of 2"),
        (torch.softmax(torch.randn(4, 10), 1), "probabilities"),
        (torch.softmax(torch.randn(4, 10), 1).half(), "probabilities"),
    ],
)
def test_what_is_not_logits_is_refused_with_advice(outputs, says):
    with pytest.raises(SparsityError, match=says):
        check_logits(outputs)


def test_log_probabilities_and_a_dead_network_are_logits():
    for logits in (torch.log_softmax(torch.randn(4, 10), 1), torch.zeros(4, 10)):
        assert check_logits(logits) is logits
