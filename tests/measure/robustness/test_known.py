"""One more eps: what an earlier call has found is neither attacked again nor changed."""

import numpy as np
import pytest
import torch
from torch import nn

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure import as_classifier
from lightning_sparse.measure.robustness.robust_accuracy import measure_robustness

LOW, MIDDLE, HIGH = 1 / 16, 2 / 16, 3 / 16


def rows(measured, eps, metric="robust_accuracy"):
    return [row for row in measured.records if (row.metric, row.eps) == (metric, eps)]


def of(measured, metric):
    return [row for row in measured.records if row.metric == metric]


@pytest.mark.parametrize("asked", [[LOW, MIDDLE, HIGH], [MIDDLE]])
def test_it_equals_the_whole_cascade_where_attacks_do_not_depend_on_their_company(digits, asked):
    data, settings = (digits.images, digits.labels), {"attacks": ["fgsm"], "tier": "monitor"}
    whole = measure_robustness(digits.model, data, eps=[LOW, MIDDLE, HIGH], **settings)
    before = measure_robustness(digits.model, data, eps=[LOW, HIGH], **settings)
    more = measure_robustness(digits.model, data, eps=asked, known=before, **settings)
    assert [row.value for row in rows(more, MIDDLE)] == [row.value for row in rows(whole, MIDDLE)]
    assert [row.samples for row in rows(more, MIDDLE)] == [row.samples for row in rows(whole, MIDDLE)]
    if len(asked) == 3:
        assert rows(more, LOW) + rows(more, HIGH) == rows(before, LOW) + rows(before, HIGH)
        assert np.array_equal(more.arrays["survives"][:, :2], whole.arrays["survives"][:, :2])
        assert of(more, "robust_curve_area")[0].value == of(whole, "robust_curve_area")[0].value
        assert of(more, "robust_eps_half")[0].value == of(whole, "robust_eps_half")[0].value


def test_one_more_eps_costs_that_eps_and_fewer_cost_a_look(digits):
    # At 20 steps walks have not ended, and which image falls to one that begins elsewhere differs with the CPU.
    seen = []

    def forward(model, x):
        seen.append(len(x))
        return model(x)

    data, classifier = (digits.images, digits.labels), as_classifier(digits.model, forward=forward)
    before = measure_robustness(classifier, data, eps=[LOW, HIGH], steps=40)
    seen.clear()
    more = measure_robustness(classifier, data, eps=[LOW, MIDDLE, HIGH], known=before, steps=40)
    spent = sum(seen)
    stood = before.arrays["survives"][:, 0]
    assert not (more.arrays["survives"][:, 1] & ~stood).any()
    assert max(seen[1:]) <= max(stood.sum(), 40)  # 40: what a check takes at least
    seen.clear()
    alone = measure_robustness(classifier, data, eps=[MIDDLE], steps=40)
    assert spent < sum(seen)
    assert (
        abs(rows(more, MIDDLE)[-1].value - rows(alone, MIDDLE)[-1].value) <= 4 / 150
    )  # which images fall differs with the CPU
    seen.clear()
    fewer = measure_robustness(classifier, data, eps=[HIGH, MIDDLE], known=more, steps=40)
    assert sum(seen) == 150 + 1  # clean, and whether the logits carry a gradient
    assert {row.eps for row in of(fewer, "robust_accuracy")} == {MIDDLE, HIGH}
    assert repr(rows(fewer, HIGH)) == repr(rows(before, HIGH))


def test_checks_of_the_model_are_kept_and_square_runs_again_only_nearer_to_half(digits):
    data = digits.images[:60], digits.labels[:60]
    small = measure_robustness(digits.model, data, eps=[0.01], steps=5)
    (looked,) = of(small, "trust_black_box")
    assert looked.eps == 0.01
    more = measure_robustness(digits.model, data, eps=[0.01, MIDDLE], steps=5, known=small)
    assert [row.eps for row in of(more, "trust_black_box")] == [0.01, MIDDLE]
    for name in ("trust_to_zero", "trust_zero_gradients", "trust_deterministic"):
        assert of(more, name) == of(small, name)
    assert len(rows(more, MIDDLE, "trust_noise")) == 1
    larger = measure_robustness(digits.model, data, eps=[0.01, 0.9], steps=5, known=more)
    assert [row.eps for row in of(larger, "trust_black_box")] == [
        0.01,
        MIDDLE,
    ]  # of the model, whatever eps is asked for
    assert rows(larger, 0.9)[-1].value == 0


def test_a_failed_check_of_the_model_is_not_forgotten(digits, times):
    """Gradients of cross-entropy are exactly zero where logits are huge."""
    loud = times(digits.model, 1e6)
    settings = {"attacks": ["pgd-margin"], "steps": 3}
    data = digits.images[:40], digits.labels[:40]
    before = measure_robustness(loud, data, eps=[LOW], **settings)
    more = measure_robustness(loud, data, eps=[MIDDLE], known=before, **settings)
    assert "zero gradients" in rows(more, MIDDLE)[-1].trust
    assert "zero gradients" in of(more, "robust_curve_area")[0].trust


def test_what_breaks_in_a_smaller_ball_than_it_stood_in_is_said_and_taken_off_the_curve():
    """One step of FGSM jumps over the only place where this model is wrong: 0.1 away."""

    def forward(model, x):
        away = model(x)[:, :1] - 0.5
        return torch.cat([torch.zeros_like(away), torch.exp(-(((away - 0.1) / 0.03) ** 2)) - 0.5], dim=1)

    data = torch.full((4, 1, 1, 1), 0.5), torch.tensor([0, 0, 0, 1])
    classifier, settings = as_classifier(nn.Flatten(), forward=forward), {"attacks": ["fgsm"], "tier": "monitor"}
    before = measure_robustness(classifier, data, eps=[0.2], **settings)
    assert rows(before, 0.2)[-1].value == 0.75
    more = measure_robustness(classifier, data, eps=[0.1, 0.2], known=before, **settings)
    assert rows(more, 0.2) == rows(before, 0.2)
    assert rows(more, 0.1)[-1].value == 0
    assert "3 broken here stood before at eps 0.2" in rows(more, 0.1)[-1].detail
    area = of(more, "robust_curve_area")[0]
    assert area.value == pytest.approx(0.75 * 0.1 / 2 / 0.2)
    assert "less 3 that stood" in area.detail
    after = measure_robustness(classifier, data, eps=[0.3], known=more, **settings)
    assert rows(after, 0.3)[-1].value == 0
    assert "what broke before at eps 0.1, 0.2" in rows(after, 0.3)[-1].detail


def test_other_images_are_refused(digits):
    settings = {"attacks": ["fgsm"], "tier": "monitor"}
    before = measure_robustness(digits.model, (digits.images[:40], digits.labels[:40]), eps=[LOW], **settings)
    for data in ((digits.images[40:80], digits.labels[40:80]), (digits.images, digits.labels)):
        with pytest.raises(SparsityError, match="known= was measured on other images"):
            measure_robustness(digits.model, data, eps=[HIGH], known=before, **settings)
