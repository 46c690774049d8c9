"""Every attack stays in its ball, is what its name says, and refuses what torchattacks would swallow."""

import pytest
import torch
import torchattacks
from torch import nn

from lightning_sparse import untouched
from lightning_sparse.errors import SparsityError
from lightning_sparse.measure import ATTACKS
from lightning_sparse.measure.robustness.attacks import Attack, attack_detail, attack_name
from lightning_sparse.measure.robustness.from_torchattacks import nearest
from lightning_sparse.measure.robustness.sample_count import counted

EPS = {"Linf": 0.15, "L2": 0.7}


def length(change, norm):
    return change.flatten(1).abs().amax(1) if norm == "Linf" else change.flatten(1).norm(dim=1)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_every_attack_stays_in_its_ball_says_truly_what_it_broke_and_repeats_itself(digits, name, norm, capsys):
    images, labels = digits.images[:60], digits.labels[:60]
    eps = EPS[norm] * (3 if name == "noise" else 1)
    settings = {"eps": eps, "norm": norm, "steps": 5}
    adversarial, broken = ATTACKS[name](digits.model, images, labels, **settings)
    assert adversarial.shape == images.shape
    assert (length(adversarial - images, norm) <= eps + 1e-5).all()
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    with untouched(digits.model):
        wrong, attacked = (digits.model(x).argmax(1) != labels for x in (images, adversarial))
    assert torch.equal(attacked, broken)
    assert attacked.sum() > wrong.sum()
    torch.rand(1)
    again, _ = ATTACKS[name](digits.model, images, labels, **settings)
    assert torch.equal(adversarial, again)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_they_are_what_their_names_say(digits, norm):
    images, labels, eps, model = digits.images[:60], digits.labels[:60], EPS[norm], digits.model
    common = {"norm": norm, "eps": eps, "n_restarts": 1, "seed": 4}
    with untouched(model):
        right = model(images).argmax(1) == labels
        theirs = {
            "apgd-ce": torchattacks.APGD(model, steps=5, loss="ce", **common),
            "apgd-dlr": torchattacks.APGD(model, steps=5, loss="dlr", **common),
            "apgd-t": torchattacks.APGDT(model, steps=5, n_classes=10, **common),
            "fab-t": torchattacks.FAB(model, steps=5, multi_targeted=True, n_classes=10, **common),
            "square": torchattacks.Square(model, n_queries=250, resc_schedule=False, **common),
        }
        if norm == "Linf":
            theirs["fgsm"] = torchattacks.FGSM(model, eps=eps)
        expected = {name: attack(images, labels) for name, attack in theirs.items()}
        wrong = {name: model(x).argmax(1) != labels for name, x in expected.items()}
    for name, x in expected.items():
        got, broken = ATTACKS[name](model, images, labels, eps=eps, norm=norm, steps=5, seed=4)
        assert torch.equal(broken, wrong[name]), name
        # Of several targets that break an image, theirs keeps the first in the ball and ours the nearest. FGSM's first
        # look leaves wrong images alone.
        if name not in ("fab-t", "fgsm"):
            assert torch.equal(got, x), name
        if name == "fgsm":
            torch.testing.assert_close(got[right], x[right])


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_one_run_of_fab_answers_for_every_eps(digits, norm):
    images, labels, model = digits.images[:60], digits.labels[:60], digits.model
    with untouched(model):
        found, away = nearest(model, images, labels, norm=norm, steps=10, enough=0.0)
        assert bool((model(found).argmax(1) != labels)[away < torch.inf].all())
    torch.testing.assert_close(length(found - images, norm)[away < torch.inf], away[away < torch.inf].float())
    shares = []
    for eps in (0.5 * EPS[norm], EPS[norm], 2 * EPS[norm]):
        fab = torchattacks.FAB(model, norm=norm, eps=eps, steps=10, multi_targeted=True, n_classes=10)
        with untouched(model):
            broken = model(fab(images, labels)).argmax(1) != labels
        assert torch.equal(away <= eps, broken)
        shares.append(broken.float().mean())
    assert 0 < shares[0] < shares[1] < shares[2]


def test_with_three_classes_targets_are_the_two_others(three_digits):
    images, labels = three_digits.images[:20], three_digits.labels[:20]
    with counted(three_digits.model) as samples:
        _, broken = ATTACKS["fab-t"](three_digits.model, images, labels, eps=1e-4, steps=5)
    assert not broken.any()
    # One image for the number of classes, all for what is right already; then, for each target, twice and 2 x 5 steps.
    assert samples.count == 1 + 20 + 2 * 20 * (2 + 2 * 5)


def test_dlr_is_refused_below_four_classes(three_digits):
    for name in ("apgd-dlr", "apgd-t"):
        with pytest.raises(SparsityError, match="needs at least 4 classes, and there are 3: use 'pgd-margin'"):
            ATTACKS[name](three_digits.model, three_digits.images, three_digits.labels, eps=0.1)
        assert (attack_name(name, 3), attack_name(name, 4)) == ("pgd-margin", name)


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_what_torchattacks_would_swallow_is_refused(digits, name):
    images, labels = digits.images[:4], digits.labels[:4]
    for wrong_images, wrong_labels, says in (
        (images, torch.full_like(labels, -1), "reach -1"),
        (images * 16, labels, "images / 16, if that is white"),
        (images - 0.5, labels, r"as_classifier\(model, mean="),
    ):
        with pytest.raises(SparsityError, match=says):
            ATTACKS[name](digits.model, wrong_images, wrong_labels, eps=0.1, steps=2)


def test_a_single_image_works(digits):
    for norm in ("Linf", "L2"):
        for attack in ATTACKS.values():
            adversarial, broken = attack(
                digits.model, digits.images[:1], digits.labels[:1], eps=0.1, norm=norm, steps=2
            )
            assert (adversarial.shape, broken.shape) == ((1, 1, 8, 8), (1,))


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("wrong", [lambda x: x + 0.2, lambda x: x * float("nan"), lambda x: x - x.max()])
def test_an_attack_that_leaves_its_ball_is_caught(wrong, norm):
    def cheat(classifier, images, labels, at):
        return wrong(images), torch.ones(2, dtype=torch.bool)

    with pytest.raises(SparsityError, match="'cheat' left its ball"):
        Attack("cheat", cheat)(
            nn.Flatten(), torch.full((2, 1, 1, 2), 0.5), torch.tensor([0, 1]), eps=0.1, norm=norm, steps=1
        )


def test_a_radius_larger_than_any_change_is_refused(digits):
    with pytest.raises(
        SparsityError, match=r"eps=128 is more than 8, and no two images of this size .* are further apart in L2"
    ):
        ATTACKS["pgd"](digits.model, digits.images[:2], digits.labels[:2], eps=128, norm="L2")


def test_squares_windows_need_images_of_five_pixels():
    with pytest.raises(SparsityError, match="use norm='Linf'"):
        ATTACKS["square"](nn.Flatten(), torch.rand(2, 1, 4, 4), torch.tensor([0, 1]), eps=0.1, norm="L2")


def test_noise_looks_as_often_as_it_says_and_never_at_what_it_has_broken(digits):
    with counted(digits.model) as samples:
        _, broken = ATTACKS["noise"](digits.model, digits.images, digits.labels, eps=0.001, steps=3)
    wrong = int(broken.sum())
    assert samples.count == 3 * 150 - 2 * wrong


def test_details_are_of_the_norm_and_the_targets():
    words = {"steps": 100, "restarts": 2, "seed": 1, "classes": 4}
    for name in ATTACKS:
        assert attack_detail(name, norm="L2", **words).startswith("L2, ")
    assert "5000 queries" in attack_detail("square", norm="Linf", **words)
    assert "3 targets x 100" in attack_detail("apgd-t", norm="Linf", **words)
    assert "2 random starts" in attack_detail("pgd", norm="Linf", **words)
