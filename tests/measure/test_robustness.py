"""Robust accuracy: an honest worst case, against plain loops and models with a certificate."""

import warnings

import pytest
import torch
from torch import nn

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure import ATTACKS, as_classifier, measure_accuracy, measure_robustness, untouched, wilson

EPS = [1 / 16, 2 / 16, 3 / 16, 6 / 16]
ALL = ("fgsm", "pgd", "pgd-margin", "apgd-dlr")


def table(records):
    return {(record.attack, record.eps): record.value for record in records}


@pytest.fixture(scope="module")
def records(digits):
    return measure_robustness(digits.model, digits.images, digits.labels, eps=EPS, attacks=ALL, steps=10)


def test_rows(records):
    assert [(record.eps, record.attack) for record in records] == [(e, a) for e in EPS for a in (*ALL, "worst")]
    for record in records:
        assert record.metric == "robust_accuracy"
        assert record.norm == "Linf"
        assert record.n == 150
        assert record.key == ""
        assert (record.low, record.high) == wilson(round(record.value * 150), 150)
    assert records[1].detail.startswith(
        "Linf, PGD on cross-entropy, 10 steps of 2.5*eps/10, random start, seed 0, broken"
    )


def test_worst_is_at_most_every_attack_and_all_fall_with_eps_to_zero(records, digits):
    values = table(records)
    clean = measure_accuracy(digits.model, digits.images, digits.labels)[0].value
    for eps in EPS:
        assert values["worst", eps] <= min(values[name, eps] for name in ALL)
    for name in (*ALL, "worst"):
        curve = [clean, *(values[name, eps] for eps in EPS)]
        assert curve == sorted(curve, reverse=True)
    assert values["worst", 6 / 16] == 0
    assert 0 < values["worst", 2 / 16] < clean


def test_equals_a_plain_loop_that_attacks_every_image_at_every_eps(digits):
    """At one eps and with one batch, nothing is left out but what is wrong on clean."""
    images, labels = digits.images, digits.labels
    got = table(measure_robustness(digits.model, images, labels, eps=[0.125], attacks=ALL, steps=5))
    classifier = as_classifier(digits.model)
    with untouched(classifier):
        right = classifier(images).argmax(1) == labels
        survived = {}
        for name in ALL:
            adversarial = ATTACKS[name](classifier, images[right], labels[right], 0.125, 5, 0)
            survived[name] = classifier(adversarial).argmax(1) == labels[right]
    for name in ALL:
        assert got[name, 0.125] == survived[name].sum().item() / 150
    assert got["worst", 0.125] == torch.stack(list(survived.values())).all(0).sum().item() / 150


def test_an_attack_alone_has_the_number_it_has_in_company(records, digits):
    alone = measure_robustness(digits.model, digits.images, digits.labels, eps=EPS, attacks=["pgd"], steps=10)
    assert [r for r in alone if r.attack == "pgd"] == [r for r in records if r.attack == "pgd"]


def test_eps_may_come_in_any_order(digits):
    settings = {"attacks": ["fgsm"], "steps": 2}
    up = measure_robustness(digits.model, digits.images, digits.labels, eps=[0.1, 0.2], **settings)
    assert up == measure_robustness(digits.model, digits.images, digits.labels, eps=[0.2, 0.1, 0.2], **settings)


def test_logit_scale_does_not_move_the_scale_free_attacks(digits, times):
    """Large logits make cross-entropy's gradient vanish: PGD alone would call the same decisions robust."""
    settings = {"eps": [0.125], "attacks": ["pgd", "pgd-margin", "apgd-dlr"], "steps": 10}
    plain, loud = (
        table(measure_robustness(times(digits.model, factor), digits.images, digits.labels, **settings))
        for factor in (1.0, 100.0)
    )
    assert loud["pgd-margin", 0.125] == plain["pgd-margin", 0.125]
    assert loud["apgd-dlr", 0.125] == plain["apgd-dlr", 0.125]
    assert loud["pgd", 0.125] > plain["pgd", 0.125] + 0.2
    assert loud["worst", 0.125] < plain["worst", 0.125] + 0.05


def test_with_three_classes_the_margin_stands_in_for_dlr_and_says_so(three_digits):
    records = measure_robustness(
        three_digits.model, three_digits.images, three_digits.labels, eps=[0.3], attacks=["pgd", "apgd-dlr"], steps=5
    )
    assert [record.attack for record in records] == ["pgd", "pgd-margin", "worst"]
    assert "in place of apgd-dlr, which needs 4 classes, not 3" in records[1].detail
    assert records[2].value < 1


def test_images_wrong_on_clean_are_broken_and_never_attacked():
    images = torch.tensor([[0.9, 0.1], [0.9, 0.1]]).view(2, 1, 1, 2)
    seen = []

    def forward(model, x):
        seen.append(len(x))
        return 4 * model(x)

    records = measure_robustness(
        nn.Flatten(), images, torch.tensor([0, 1]), eps=[0.01, 0.02], attacks=["pgd"], steps=2, forward=forward
    )
    assert [record.value for record in records] == [0.5] * 4
    assert seen[0] == 2
    assert set(seen[1:]) == {1}


def test_a_model_that_gets_nothing_right_has_no_one_to_attack():
    records = measure_robustness(nn.Flatten(), torch.full((2, 1, 1, 2), 0.3), torch.tensor([1, 1]), eps=[0.1])
    assert {record.value for record in records} == {0.0}


def test_a_certain_model_keeps_its_certified_images():
    # The logits are the pixels, so an image breaks exactly where eps exceeds half its margin.
    margins = torch.tensor([0.1, 0.3, 0.5, 0.7])
    images = torch.stack([0.5 + margins / 2, 0.5 - margins / 2], dim=1).view(4, 1, 1, 2)
    records = measure_robustness(
        nn.Flatten(),
        images,
        torch.zeros(4, dtype=torch.long),
        eps=[0.1, 0.2, 0.3, 0.4],
        forward=lambda m, x: 2 * m(x),
        attacks=["fgsm", "pgd", "pgd-margin"],
    )
    for name in ("fgsm", "pgd", "pgd-margin", "worst"):
        assert [record.value for record in records if record.attack == name] == [0.75, 0.5, 0.25, 0.0]


def test_progress_is_told_only_when_asked(digits, capsys):
    settings = {"eps": [0.1], "attacks": ["fgsm"], "steps": 1}
    measure_robustness(digits.model, digits.images, digits.labels, **settings)
    assert capsys.readouterr() == ("", "")
    measure_robustness(digits.model, digits.images, digits.labels, **settings, progress=True)
    assert "fgsm" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"eps": []}, "not a list of radii"),
        ({"eps": 0.1}, "not a list of radii"),
        ({"eps": [0.1, 8]}, "write 8 / 255"),
        ({"eps": [0.0]}, "eps=0.0"),
        ({"eps": [float("nan")]}, "eps=nan"),
        ({"eps": [0.1], "attacks": ["pdg"]}, "did you mean 'pgd'"),
        ({"eps": [0.1], "attacks": "pgd"}, "not a list of names"),
        ({"eps": [0.1], "attacks": []}, "not a list of names"),
        ({"eps": [0.1], "steps": 0}, "steps=0"),
        ({"eps": [0.1], "batch_size": 0}, "batch_size=0"),
    ],
)
def test_wrong_settings_are_refused(digits, settings, says):
    with pytest.raises(SparsityError, match=says):
        measure_robustness(digits.model, digits.images, digits.labels, **settings)


def test_no_warning_leaks(digits):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        measure_robustness(digits.model, digits.images[:8], digits.labels[:8], eps=[0.1], steps=2)
    assert not caught
