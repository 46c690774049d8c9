"""PGD against torchattacks', by hand, and with images leaving once they are broken."""

import pytest
import torch
import torchattacks
from torch import nn

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure import pgd, untouched
from lightning_sparse.measure.projected_gradient import _cross_entropy, _margin


@pytest.mark.parametrize("n", [64, 150])
@pytest.mark.parametrize("random_start", [True, False])
def test_equals_torchattacks_where_broken_images_are_kept(digits, n, random_start):
    images, labels = digits.images[:n], digits.labels[:n]
    eps, steps = 0.15, 10
    with untouched(digits.model, seed=3):
        theirs = torchattacks.PGD(
            digits.model, eps=eps, alpha=2.5 * eps / steps, steps=steps, random_start=random_start
        )
        expected = theirs(images, labels)
    with untouched(digits.model, seed=3):
        got = pgd(digits.model, images, labels, eps=eps, steps=steps, random_start=random_start, keep_broken=True)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


def test_leaving_broken_images_out_breaks_at_least_as_many_with_less_work(digits):
    rows = []

    class Counted(nn.Module):
        def forward(self, x):
            rows.append(len(x))
            return digits.model(x)

    broken, work = {}, {}
    for keep in (True, False):
        rows.clear()
        with untouched(digits.model):
            adversarial = pgd(Counted(), digits.images, digits.labels, eps=0.15, keep_broken=keep)
            work[keep] = sum(rows)
            broken[keep] = digits.model(adversarial).argmax(1) != digits.labels
    assert work[True] == 20 * 150
    assert work[False] < 0.6 * work[True]
    assert broken[True].sum() <= broken[False].sum()
    assert bool((broken[False] | ~broken[True]).all())


def test_an_image_broken_on_the_way_counts_although_the_last_iterate_is_right():
    # Class 1 wins only for a pixel in (0.44, 0.56); each step goes up by 0.1 and ends far above.
    def model(x):
        return torch.cat([10 * (x - 0.5).abs() - 0.6 + 0.1 * (0.5 - x), torch.zeros_like(x)], dim=1)

    class Valley(nn.Module):
        def forward(self, x):
            return model(x.flatten(1))

    start = torch.full((1, 1, 1, 1), 0.3)
    settings = {"eps": 0.6, "steps": 2, "step_size": 0.2, "random_start": False}
    caught = pgd(Valley(), start, torch.tensor([0]), **settings)
    assert caught.item() == pytest.approx(0.5)


def test_one_step_by_hand():
    # logits (2 a, 0): cross-entropy of class 0 falls with a, so a goes down and b stays.
    class Linear(nn.Module):
        def forward(self, x):
            a = x.flatten(1)[:, :1]
            return torch.cat([2 * a, torch.zeros_like(a)], dim=1)

    images = torch.tensor([0.5, 0.5, 0.02, 0.3]).view(2, 1, 1, 2)
    got = pgd(Linear(), images, torch.tensor([0, 0]), eps=0.1, steps=1, step_size=0.04, random_start=False)
    torch.testing.assert_close(got.flatten(), torch.tensor([0.46, 0.5, 0.0, 0.3]))


def test_step_size_scales_with_eps_and_reaches_the_far_side(digits):
    with untouched(digits.model):
        moved = (pgd(digits.model, digits.images, digits.labels, eps=0.02, keep_broken=True) - digits.images).abs()
    assert moved.amax().item() == pytest.approx(0.02, abs=1e-6)
    assert (moved > 0.0199).float().mean() > 0.3


def test_losses_by_hand():
    logits, labels = torch.tensor([[1.0, 3.0, 2.0], [4.0, 0.0, -1.0]]), torch.tensor([0, 0])
    assert _margin(logits, labels).item() == (3 - 1) + (0 - 4)
    assert _cross_entropy(logits, labels).item() == pytest.approx(-logits.log_softmax(1)[:, 0].sum().item())


def test_all_broken_at_once_stops():
    images = torch.rand(3, 1, 1, 2)
    wrong = 1 - images.flatten(1).argmax(1)
    assert torch.equal(pgd(nn.Flatten(), images, wrong, eps=0.1, random_start=False), images)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"eps": 0}, "eps=0"),
        ({"eps": 8}, "write 8 / 255"),
        ({"eps": True}, "eps=True"),
        ({"eps": 0.1, "steps": 0}, "steps=0"),
        ({"eps": 0.1, "steps": 2.0}, "steps=2.0"),
        ({"eps": 0.1, "step_size": -0.1}, "step_size=-0.1"),
        ({"eps": 0.1, "loss": "dlr"}, "loss='dlr' does not exist"),
    ],
)
def test_wrong_settings_are_refused(settings, says):
    with pytest.raises(SparsityError, match=says):
        pgd(nn.Flatten(), torch.rand(2, 1, 1, 2), torch.tensor([0, 1]), **settings)
