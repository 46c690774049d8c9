"""Robust accuracy: an honest worst case, against plain loops and models with a certificate; and what it costs."""

import warnings

import numpy as np
import pytest
import torch
import torchattacks
from torch import nn

from lightning_sparse import untouched
from lightning_sparse.errors import SparsityError
from lightning_sparse.measure import ATTACKS, as_classifier
from lightning_sparse.measure.robustness.robust_accuracy import measure_robustness
from lightning_sparse.measure.robustness.sample_count import counted
from lightning_sparse.statistics import wilson

EPS = [1 / 16, 2 / 16, 3 / 16, 6 / 16]
ALL = ("fgsm", "pgd", "pgd-margin", "apgd-dlr")


def table(measured):
    return {(row.attack, row.eps): row.value for row in measured.records if row.metric == "robust_accuracy"}


def of(measured, metric):
    return next(row for row in measured.records if row.metric == metric)


@pytest.fixture(scope="module")
def measured(digits):
    data = digits.images, digits.labels
    return measure_robustness(digits.model, data, eps=EPS, tier="monitor", attacks=ALL, steps=10)


def test_rows(measured):
    rows = [row for row in measured.records if row.metric == "robust_accuracy"]
    assert [(row.eps, row.attack) for row in rows] == [(e, a) for e in EPS for a in (*ALL, "worst")]
    for row in rows:
        assert (row.norm, row.n, row.key, row.trust) == ("Linf", 150, "", "")
        assert (row.low, row.high) == wilson(round(row.value * 150), 150)
    assert rows[1].detail.startswith(
        "Linf, PGD on cross-entropy, 10 steps of 2.5*eps/10, 1 random start, seed 0, broken"
    )
    assert "all before it in fgsm > pgd > pgd-margin > apgd-dlr" in rows[1].detail


def test_rows_fall_down_the_cascade_and_along_eps_to_zero(measured, digits):
    values = table(measured)
    clean = measured.arrays["correct"].mean()
    order = [clean, *(values[name, eps] for eps in EPS for name in (*ALL, "worst"))]
    assert order == sorted(order, reverse=True)
    assert values["worst", 6 / 16] == 0
    assert 0 < values["worst", 2 / 16] < clean


def test_arrays_are_the_images_behind_the_rows(measured, digits):
    arrays, values = measured.arrays, table(measured)
    assert arrays["survives"].shape == (150, 4)
    assert arrays["eps"].tolist() == EPS
    assert arrays["labels"].tolist() == digits.labels.tolist()
    with untouched(digits.model):
        right = (digits.model(digits.images).argmax(1) == digits.labels).numpy()
    assert np.array_equal(arrays["correct"], right)
    assert arrays["survives"].mean(axis=0).tolist() == pytest.approx([values["worst", eps] for eps in EPS])
    assert not (arrays["survives"] & ~right[:, None]).any()
    assert not (arrays["survives"][:, 1:] & ~arrays["survives"][:, :-1]).any()


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.125), ("L2", 0.5)])
def test_equals_a_plain_loop_at_one_eps(digits, norm, eps):
    images, labels = digits.images, digits.labels
    settings = {"attacks": ALL, "steps": 5, "restarts": 2, "norm": norm, "tier": "monitor"}
    got = table(measure_robustness(digits.model, (images, labels), eps=[eps], **settings))
    classifier = as_classifier(digits.model)
    with untouched(classifier):
        standing = classifier(images).argmax(1) == labels
        for name in ALL:
            left = standing.nonzero().squeeze(1)
            adversarial, _ = ATTACKS[name](
                classifier, images[left], labels[left], eps=eps, norm=norm, steps=5, restarts=2
            )
            standing[left] = classifier(adversarial).argmax(1) == labels[left]
            assert got[name, eps] == standing.sum().item() / 150
    assert got["worst", eps] == standing.sum().item() / 150


def test_eps_may_come_in_any_order(digits):
    data, settings = (digits.images, digits.labels), {"attacks": ["fgsm"], "tier": "monitor"}
    up = measure_robustness(digits.model, data, eps=[0.1, 0.2], **settings)
    assert up.records == measure_robustness(digits.model, data, eps=[0.2, 0.1, 0.2], **settings).records


def test_the_curves_area_and_half_by_hand():
    # The logits are the pixels, so an image breaks exactly where eps exceeds half its margin.
    margins = torch.tensor([0.1, 0.3, 0.5, 0.7])
    images = torch.stack([0.5 + margins / 2, 0.5 - margins / 2], dim=1).view(4, 1, 1, 2)
    labels = torch.zeros(4, dtype=torch.long)
    classifier = as_classifier(nn.Flatten(), forward=lambda model, x: 2 * model(x))
    measured = measure_robustness(classifier, (images, labels), eps=[0.1, 0.2, 0.4], tier="monitor")
    values = table(measured)
    assert [values["worst", eps] for eps in (0.1, 0.2, 0.4)] == [0.75, 0.5, 0.0]
    # (1 + 0.75) / 2 * 0.1 + (0.75 + 0.5) / 2 * 0.1 + 0.5 / 2 * 0.2 = 0.2, of 0.4.
    assert of(measured, "robust_curve_area").value == pytest.approx(0.5)
    assert of(measured, "robust_eps_half").value == pytest.approx(0.2)
    # The areas of the four: 0.05, 0.15, 0.3, 0.3 of 0.4.
    areas = np.array([0.05, 0.15, 0.3, 0.3]) / 0.4
    half_width = 1.959964 * areas.std(ddof=1) / 2
    assert of(measured, "robust_curve_area").high == pytest.approx(areas.mean() + half_width)
    between = measure_robustness(classifier, (images, labels), eps=[0.1, 0.3], tier="monitor")
    # From 0.75 at 0.1 to 0.25 at 0.3, through half of 1.
    assert of(between, "robust_eps_half").value == pytest.approx(0.2)
    never = of(measure_robustness(classifier, (images, labels), eps=[0.1], tier="monitor"), "robust_eps_half")
    assert np.isnan(never.value)
    assert "0.75 is left at the largest eps, more than half of 1" in never.detail


def test_logit_scale_does_not_move_the_worst_case(digits, times):
    """Large logits make cross-entropy's gradient vanish: PGD alone would call the same decisions robust."""
    data, settings = (digits.images, digits.labels), {"eps": [0.125], "attacks": ["pgd", "pgd-margin"], "steps": 10}
    plain, loud = (
        table(measure_robustness(times(digits.model, factor), data, tier="monitor", **settings))
        for factor in (1.0, 100.0)
    )
    assert loud["pgd", 0.125] > plain["pgd", 0.125] + 0.2
    assert loud["worst", 0.125] < plain["worst", 0.125] + 0.02


def test_with_three_classes_the_margin_stands_in_for_dlr_and_says_so(three_digits):
    data = three_digits.images, three_digits.labels
    measured = measure_robustness(
        three_digits.model, data, eps=[0.3], tier="monitor", attacks=["pgd", "apgd-dlr"], steps=5
    )
    rows = [row for row in measured.records if row.metric == "robust_accuracy"]
    assert [row.attack for row in rows] == ["pgd", "pgd-margin", "worst"]
    assert "in place of apgd-dlr, which needs 4 classes, not 3" in rows[1].detail
    assert rows[2].value < 1


def test_images_wrong_on_clean_are_broken_and_never_attacked():
    images = torch.tensor([[0.9, 0.1], [0.9, 0.1]]).view(2, 1, 1, 2)
    seen = []

    def forward(model, x):
        seen.append(len(x))
        return 4 * model(x)

    data, classifier = (images, torch.tensor([0, 1])), as_classifier(nn.Flatten(), forward=forward)
    measured = measure_robustness(classifier, data, eps=[0.01, 0.02], tier="monitor", steps=2)
    assert set(table(measured).values()) == {0.5}
    assert seen[0] == 2
    assert set(seen[1:]) == {1}


def test_a_model_that_gets_nothing_right_has_no_one_to_attack():
    data = torch.full((2, 1, 1, 2), 0.3), torch.tensor([1, 1])
    measured = measure_robustness(nn.Flatten(), data, eps=[0.1])
    assert set(table(measured).values()) == {0.0}
    assert np.isnan(of(measured, "robust_eps_half").value)
    assert "nothing is right on clean" in of(measured, "robust_eps_half").detail
    assert np.isnan(of(measured, "trust_zero_gradients").value)


def test_a_loader_is_as_good_as_tensors(digits):
    loader = list(zip(digits.images.split(64), digits.labels.split(64), strict=True))
    settings = {"eps": [0.1], "tier": "monitor"}
    expected = measure_robustness(digits.model, (digits.images, digits.labels), **settings)
    assert repr(measure_robustness(digits.model, loader, **settings).records) == repr(expected.records)


def test_it_leaves_no_trace_and_works_under_inference_mode(digits):
    state = {name: value.clone() for name, value in digits.model.state_dict().items()}
    modes = [module.training for module in digits.model.modules()]
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    settings = {"eps": [0.1], "norm": "L2", "steps": 2}
    with torch.inference_mode():
        inside = measure_robustness(digits.model, (digits.images[:20] + 0, digits.labels[:20] + 0), **settings)
    assert torch.equal(torch.rand(3), expected)
    outside = measure_robustness(digits.model, (digits.images[:20], digits.labels[:20]), **settings)
    assert repr(inside.records) == repr(outside.records)
    assert modes == [module.training for module in digits.model.modules()]
    assert all(torch.equal(value, state[name]) for name, value in digits.model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in digits.model.modules())


def test_the_samples_of_all_rows_are_all_that_went_through_the_model(digits):
    seen = []

    def forward(model, x):
        seen.append(len(x))
        return model(x)

    data, classifier = (digits.images[:60], digits.labels[:60]), as_classifier(digits.model, forward=forward)
    for extra in ({"tier": "sweep"}, {"attacks": ["apgd-t", "fab-t", "square", "noise"], "steps": 3}):
        seen.clear()
        measured = measure_robustness(classifier, data, eps=[0.1, 0.2], **extra)
        assert sum(row.samples for row in measured.records) == sum(seen)


# What it costs. ---------------------------------------------------------------------------------------------------------


def least_work(model, images, labels, radii, steps, restarts):
    """Forward images that any such cascade needs: looks until each image breaks, and steps of those that stay.

    A loop of its own: nobody leaves, so what each image needed is read off afterwards.
    """
    work = len(images)
    standing = (model(images).argmax(1) == labels).nonzero().squeeze(1)
    ended = None
    for eps in radii:
        torch.manual_seed(0)
        for walk in range(restarts):
            clean, targets = images[standing], labels[standing]
            if walk == 0 and ended is not None:
                x = ended
            else:
                x = (clean + torch.empty_like(clean).uniform_(-eps, eps)).clamp(0, 1)
            first = torch.full((len(clean),), steps + 1)
            for step in range(steps + 1):
                x.requires_grad_(True)
                loss = nn.functional.cross_entropy(model(x), targets, reduction="none")
                wrong = model(x).argmax(1) != targets
                first = torch.where(wrong & (first > steps), step, first)
                sign = torch.autograd.grad(loss.sum(), x)[0].sign()
                x = torch.clamp(clean + (x.detach() + 2.5 * eps / steps * sign - clean).clamp(-eps, eps), 0, 1)
                stays = first > steps
                if step < steps:
                    last = x
                else:
                    # A look for each step; to see that the last one broke an image takes one more.
                    work += int((first[~stays] + 1).sum() + steps * stays.sum())
            standing = standing[stays]
        ended = last[stays]
        looks = []
        hook = model.register_forward_hook(lambda module, inputs, logits, looks=looks: looks.append(logits.argmax(1)))
        attack = torchattacks.APGD(model, eps=eps, steps=steps, loss="dlr", seed=0)
        if len(standing):
            attack(images[standing], labels[standing])
        hook.remove()
        if len(standing):
            wrong = torch.stack(looks[1:]) != labels[standing]  # its first look is at the clean images
            stays = ~wrong.any(0)
            work += int((wrong.int().argmax(0)[~stays] + 1).sum() + len(wrong) * stays.sum())
            standing, ended = standing[stays], ended[stays]
    return work, len(standing)


@pytest.mark.parametrize("factor", [0.2, 1.0, 3.0])
@pytest.mark.parametrize("radii", [[1 / 16, 2 / 16, 3 / 16], [0.02, 0.04], [0.125]])
def test_the_cascade_does_hardly_more_than_it_must(digits, times, radii, factor):
    model = times(digits.model, factor)
    with untouched(model):
        least, left = least_work(model, digits.images, digits.labels, radii, 20, 2)
    measured = measure_robustness(model, (digits.images, digits.labels), eps=radii)
    spent = sum(row.samples for row in measured.records if row.metric.startswith("robust"))
    assert measured.arrays["survives"][:, -1].sum() == left
    assert least <= spent <= 1.1 * least


def test_nor_on_a_network_of_another_kind(digits):
    """No convolution, no BatchNorm, no kinks, and trained on noisy images: a quarter stand at the largest eps."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 40), nn.Tanh(), nn.Linear(40, 10))
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    images, labels = digits.calibration
    for _ in range(60):
        optimizer.zero_grad()
        noisy = (images + 0.2 * torch.randn_like(images)).clamp(0, 1)
        nn.functional.cross_entropy(model(noisy), labels).backward()
        optimizer.step()
    radii = [1 / 16, 2 / 16]
    with untouched(model):
        least, left = least_work(model, digits.images, digits.labels, radii, 20, 2)
    measured = measure_robustness(model, (digits.images, digits.labels), eps=radii)
    spent = sum(row.samples for row in measured.records if row.metric.startswith("robust"))
    assert measured.arrays["survives"][:, -1].sum() == left
    assert least <= spent <= 1.1 * least


def test_a_curve_of_five_eps_costs_at_most_half_of_torchattacks_pgd_at_each(digits):
    """Random starts differ where fewer images are left, so one image either way is luck: what counts is all seeds."""
    radii = [k / 16 for k in range(1, 6)]
    ours, theirs, spent, work = {}, {}, 0, 0
    for seed in range(3):
        settings = {"eps": radii, "tier": "monitor", "steps": 20, "seed": seed}
        measured = measure_robustness(digits.model, (digits.images, digits.labels), **settings)
        ours |= {(seed, eps): value for (name, eps), value in table(measured).items() if name == "worst"}
        spent += sum(row.samples for row in measured.records)
        for eps in radii:
            with untouched(digits.model, seed), counted(digits.model) as samples:
                attack = torchattacks.PGD(digits.model, eps=eps, alpha=2.5 * eps / 20, steps=20)
                adversarial = attack(digits.images, digits.labels)
                survive = digits.model(adversarial).argmax(1) == digits.labels
            theirs[seed, eps] = survive.sum().item() / 150
            work += samples.count
    assert spent <= work / 2
    assert sum(ours.values()) <= sum(theirs.values())
    assert all(ours[key] <= theirs[key] + 1 / 150 + 1e-9 for key in theirs)


# What is refused. -------------------------------------------------------------------------------------------------------


def test_progress_is_told_only_when_asked(digits, capsys):
    data, settings = (digits.images[:20], digits.labels[:20]), {"eps": [0.1], "attacks": ["fgsm"], "steps": 1}
    measure_robustness(digits.model, data, **settings)
    assert capsys.readouterr() == ("", "")
    measure_robustness(digits.model, data, **settings, progress=True)
    told = capsys.readouterr()
    assert told.out == ""
    assert "attacks" in told.err
    assert "checks" in told.err


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"eps": []}, "not a list of radii"),
        ({"eps": 0.1}, "not a list of radii"),
        ({"eps": [0.1, 8]}, "write 8 / 255"),
        ({"eps": [0.0]}, "eps=0.0"),
        ({"eps": [float("nan")]}, "eps=nan"),
        ({"eps": [0.5, 128], "norm": "L2"}, "no two images of this size with pixels in .0, 1. are further apart in L2"),
        ({"eps": [0.1], "norm": "l2"}, r"norm='l2' does not exist.*\(allowed: L2, Linf, embedding, synonyms\)"),
        ({"eps": [0.1], "tier": "full"}, "tier='full' does not exist"),
        ({"eps": [0.1], "attacks": ["pdg"]}, "did you mean 'pgd'"),
        ({"eps": [0.1], "attacks": "pgd"}, "not a list of names"),
        ({"eps": [0.1], "attacks": []}, "not a list of names"),
        ({"eps": [0.1], "steps": 0}, "steps=0"),
        ({"eps": [0.1], "restarts": 0}, "restarts=0"),
        ({"eps": [0.1], "batch_size": 0}, "batch_size=0"),
    ],
)
def test_wrong_settings_are_refused(digits, settings, says):
    with pytest.raises(SparsityError, match=says):
        measure_robustness(digits.model, (digits.images, digits.labels), **settings)


def detached(model):
    return as_classifier(model, forward=lambda model, x: model(x.detach()))


def test_a_model_without_gradients_is_refused(digits):
    with pytest.raises(SparsityError, match="have no gradient in the pixels"):
        measure_robustness(detached(digits.model), (digits.images, digits.labels), eps=[0.1])


def test_no_warning_leaks(digits):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        measure_robustness(digits.model, (digits.images[:8], digits.labels[:8]), eps=[0.1], steps=2)
    assert not caught


def test_without_gradients_the_black_box_still_runs(digits):
    data = (digits.images[:10], digits.labels[:10])
    settings = {"eps": [0.2], "attacks": ["square"], "tier": "monitor", "steps": 2}
    found = measure_robustness(detached(digits.model), data, **settings)
    assert {row.attack for row in found.records} == {"square", "worst"}


def test_where_square_cannot_run_the_check_says_so():
    torch.manual_seed(0)
    data = (torch.rand(12, 1, 4, 4), torch.arange(12) % 4)
    found = measure_robustness(nn.Sequential(nn.Flatten(), nn.Linear(16, 4)), data, eps=[0.2], norm="L2", steps=2)
    row = next(row for row in found.records if row.metric == "trust_black_box")
    assert (row.trust, row.n) == ("", 0)
    assert "at least 5 pixels" in row.detail
