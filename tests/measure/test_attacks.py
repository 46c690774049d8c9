"""Every attack stays in its ball, is what its name says, and refuses what torchattacks would swallow."""

import pytest
import torch
import torchattacks
from torch import nn

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure import ATTACKS, untouched
from lightning_sparse.measure.attacks import _honest


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_every_attack_stays_in_its_ball_breaks_something_and_repeats_itself(digits, name, capsys):
    images, labels = digits.images[:60], digits.labels[:60]
    adversarial = ATTACKS[name](digits.model, images, labels, 0.15, 5, 0)
    assert adversarial.shape == images.shape
    assert (adversarial - images).abs().max() <= 0.15 + 1e-6
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    with untouched(digits.model):
        clean, attacked = ((digits.model(x).argmax(1) == labels).sum() for x in (images, adversarial))
    assert attacked < clean
    torch.rand(1)
    assert torch.equal(adversarial, ATTACKS[name](digits.model, images, labels, 0.15, 5, 0))
    assert capsys.readouterr() == ("", "")


def test_they_are_what_their_names_say(digits):
    images, labels = digits.images[:60], digits.labels[:60]
    with untouched(digits.model):
        fgsm = torchattacks.FGSM(digits.model, eps=0.1)(images, labels)
        apgd = torchattacks.APGD(digits.model, eps=0.1, steps=5, n_restarts=1, seed=4, loss="dlr")(images, labels)
    torch.testing.assert_close(ATTACKS["fgsm"](digits.model, images, labels, 0.1, 5, 4), fgsm)
    torch.testing.assert_close(ATTACKS["apgd-dlr"](digits.model, images, labels, 0.1, 5, 4), apgd)


def test_dlr_is_refused_below_four_classes(three_digits):
    with pytest.raises(SparsityError, match="needs at least 4 classes, and there are 3: use 'pgd-margin'"):
        ATTACKS["apgd-dlr"](three_digits.model, three_digits.images, three_digits.labels, 0.1, 5, 0)


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_what_torchattacks_would_swallow_is_refused(digits, name):
    images, labels = digits.images[:4], digits.labels[:4]
    for wrong_images, wrong_labels, says in (
        (images, torch.full_like(labels, -1), "reach -1"),
        (images * 16, labels, "images / 255"),
        (images - 0.5, labels, "mean= and std="),
    ):
        with pytest.raises(SparsityError, match=says):
            ATTACKS[name](digits.model, wrong_images, wrong_labels, 0.1, 2, 0)


def test_a_single_image_works(digits):
    for attack in ATTACKS.values():
        assert attack(digits.model, digits.images[:1], digits.labels[:1], 0.1, 2, 0).shape == (1, 1, 8, 8)


@pytest.mark.parametrize("wrong", [lambda x: x + 0.2, lambda x: x * float("nan"), lambda x: x - x.max()])
def test_an_attack_that_leaves_its_ball_is_caught(wrong):
    @_honest
    def cheat(classifier, images, labels, eps, steps, seed):
        return wrong(images)

    with pytest.raises(SparsityError, match="'cheat' left its ball"):
        cheat(nn.Flatten(), torch.full((2, 1, 1, 2), 0.5), torch.tensor([0, 1]), 0.1, 1, 0)
