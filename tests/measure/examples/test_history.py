"""Every score of a history made by hand, and their AUROC as records."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from lightning_sparse import SparsityError
from lightning_sparse.measure import true_class_gradients
from lightning_sparse.measure.examples.found_noise import noise_records
from lightning_sparse.measure.examples.history import ExampleHistory
from lightning_sparse.measure.examples.look import Look, look_at

LABELS = torch.tensor([0, 0, 1])
RIGHT, WRONG = [2.0, 0.0], [0.0, 1.0]
LOOKS = [  # of image 0: right, wrong, right, wrong; image 1: never right; image 2: always
    [RIGHT, WRONG, WRONG],
    [WRONG, WRONG, WRONG],
    [RIGHT, WRONG, WRONG],
    [WRONG, WRONG, WRONG],
]


def history(of_logit=None):
    made = ExampleHistory(torch.ones(3, 1, 2, 2) * torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1), LABELS)
    for step, logits in enumerate(LOOKS):
        gradient = torch.zeros(3, 2, 2) if of_logit is None else of_logit[step]
        made.add(Look(torch.tensor(logits), gradient, 2 * gradient))
    return made


def test_scores_of_outputs_by_hand():
    scores = history().scores()
    near, far = math.log1p(math.exp(-2)), math.log1p(math.exp(1))  # losses at margins of 2 and -1
    assert scores["loss"] == pytest.approx([(near + far) / 2, far, math.log1p(math.exp(-1))])
    # Of two classes, softmax less one-hot is (-p, p): its norm is sqrt(2) p, p the other class's probability.
    p, q, r = (1 / (1 + math.exp(margin)) for margin in (2, -1, 1))
    assert scores["el2n"] == pytest.approx([math.sqrt(2) * x for x in ((p + q) / 2, q, r)])
    assert scores["aum"] == pytest.approx([-0.5, 1.0, -1.0])
    assert scores["forgetting"].tolist() == [2.0, 4.0, 0.0]  # twice; never right counts as all looks; never
    assert scores["input_norm"] == pytest.approx([2.0, 4.0, 6.0])


def test_relative_vog_is_the_deviation_over_the_mean_by_norms():
    gradients = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    scores, plain = history(gradients).scores(), gradients.double().flatten(2).numpy()
    spread = np.sqrt((plain.std(axis=0) ** 2).sum(axis=1))
    assert scores["vog_relative"] == pytest.approx(spread / np.linalg.norm(plain.mean(axis=0), axis=1), rel=1e-5)
    assert scores["vog"] == pytest.approx(plain.std(axis=0).mean(axis=1), rel=1e-5)
    assert scores["vog_loss"] == pytest.approx(2 * scores["vog"], rel=1e-5)


def test_before_the_first_look_nothing_is_known_of_the_network():
    scores = ExampleHistory(torch.ones(3, 1, 2, 2), LABELS).scores()
    assert {name for name, values in scores.items() if not np.isnan(values).any()} == {"input_norm", "random"}


def test_a_restored_history_goes_on():
    whole, other = history(), ExampleHistory(torch.ones(3, 1, 2, 2), LABELS)
    other.load_state_dict(whole.state_dict())
    for name in ("loss", "el2n", "forgetting", "aum"):
        assert np.array_equal(other.scores()[name], whole.scores()[name])


def test_a_look_takes_the_gradients_of_each_image_alone():
    torch.manual_seed(0)
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), torch.rand(7, 1, 2, 2)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    seen = look_at(model, images, labels, batch_size=3)
    assert torch.allclose(seen.of_logit, true_class_gradients(model, images, labels))
    for i in range(7):
        one = images[i : i + 1].clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(one), labels[i : i + 1]), one)
        assert torch.allclose(seen.of_loss[i], gradient[0, 0], atol=1e-6)


def test_records_say_what_was_found_and_learned():
    rows = noise_records({"": history()}, torch.tensor([False, True, False]))
    found = {(row.metric, row.condition): row.value for row in rows}
    assert found["noise_auroc", "loss"] == found["noise_auroc", "aum"] == 1.0
    assert found["noise_auroc", "input_norm"] == 0.5
    assert math.isnan(found["noise_auroc", "vog_relative"])  # no gradient moved
    assert found["noise_wrong_learned", ""] == 0.0  # at the last look, image 1 has not its label
    assert found["noise_right_learned", ""] == 0.5  # nor has image 0


def test_without_known_noise_there_is_no_area():
    assert [row.metric for row in noise_records({"": history()}, None)] == ["noise_right_learned"]


@pytest.mark.parametrize("wrong", [torch.tensor([True]), torch.tensor([1, 0, 0])])
def test_truth_of_other_images_is_refused(wrong):
    with pytest.raises(SparsityError, match=r"give \(3,\) booleans"):
        noise_records({"": history()}, wrong)


def test_a_look_at_other_images_is_refused():
    with pytest.raises(SparsityError, match="give the same images"):
        history().add(Look(torch.zeros(2, 2), torch.zeros(2, 2, 2), torch.zeros(2, 2, 2)))
