"""PGD against torchattacks', by hand, and with images leaving once they are broken."""

import pytest
import torch
import torchattacks
from torch import nn

from lightning_sparse import untouched
from lightning_sparse.errors import SparsityError
from lightning_sparse.measure import pgd
from lightning_sparse.measure.robustness.pgd import _cross_entropy, _margin


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
        got, broken = pgd(
            digits.model, images, labels, eps=eps, steps=steps, random_start=random_start, keep_broken=True
        )
        assert torch.equal(broken, digits.model(got).argmax(1) != labels)
    assert torch.equal(got, expected)


@pytest.mark.parametrize("random_start", [True, False])
def test_equals_torchattacks_in_l2_where_broken_images_are_kept(digits, random_start):
    images, labels = digits.images, digits.labels
    eps, steps = 0.6, 10
    with untouched(digits.model, seed=3):
        theirs = torchattacks.PGDL2(
            digits.model,
            eps=eps,
            alpha=2.5 * eps / steps,
            steps=steps,
            random_start=random_start,
            eps_for_division=1e-30,
        )
        expected = theirs(images, labels)
    with untouched(digits.model, seed=3):
        settings = {"eps": eps, "norm": "L2", "steps": steps, "random_start": random_start, "keep_broken": True}
        got, broken = pgd(digits.model, images, labels, **settings)
        assert torch.equal(broken, digits.model(got).argmax(1) != labels)
    # Theirs divides by the norm of the mean's gradient, ours of the sum's: equal but for rounding.
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    assert (got - images).flatten(1).norm(dim=1).max() <= eps + 1e-5


class Counted(nn.Module):
    """Counts the images it is shown, and refuses any that was shown to be misclassified before."""

    def __init__(self, model, labels):
        super().__init__()
        self.model, self.labels, self.rows, self.spent = model, labels, [], set()

    def forward(self, x):
        self.rows.append(len(x))
        places = x.detach()[:, 0, 0, 0].round(decimals=3).tolist()  # each image's own corner, which never moves
        assert not self.spent.intersection(places)
        logits = self.model(
            torch.cat([0 * x[:, :, :1, :1], x[:, :, :, 1:].flatten(1)[:, None, None]], dim=3).flatten(1)
        )
        wrong = logits.argmax(1) != torch.tensor([self.labels[place] for place in places])
        self.spent.update(place for place, gone in zip(places, wrong.tolist(), strict=True) if gone)
        return logits


@pytest.mark.parametrize("restarts", [1, 3])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_no_broken_image_is_ever_looked_at_again(norm, restarts):
    torch.manual_seed(0)
    net = nn.Linear(13, 3)
    images = torch.rand(100, 1, 4, 4)
    images[:, 0, :, 0] = torch.arange(100).view(-1, 1) / 1000  # no gradient reaches it and no random start changes it
    labels = net(torch.cat([torch.zeros(100, 1), images[:, :, :, 1:].flatten(1)], dim=1)).argmax(1)
    model = Counted(net, dict(zip(images[:, 0, 0, 0].round(decimals=3).tolist(), labels.tolist(), strict=True)))
    eps = 0.1 if norm == "Linf" else 0.3
    settings = {"norm": norm, "steps": 5, "restarts": restarts, "random_start": False}
    _, broken = pgd(model, images, labels, eps=eps, **settings)
    assert 10 < broken.sum() < 90
    assert len(model.spent) == broken.sum()
    # Steps of those that stay, one last look at each end, and the looks that it took to see the others break.
    assert sum(model.rows) <= 6 * restarts * int((~broken).sum()) + 6 * int(broken.sum())
    assert sum(model.rows) >= 6 * restarts * int((~broken).sum()) + 2 * int(broken.sum())


def test_leaving_broken_images_out_breaks_at_least_as_many_with_less_work(digits):
    rows = []

    class Watched(nn.Module):
        def forward(self, x):
            rows.append(len(x))
            return digits.model(x)

    broken, work = {}, {}
    for keep in (True, False):
        rows.clear()
        with untouched(digits.model):
            _, broken[keep] = pgd(Watched(), digits.images, digits.labels, eps=0.15, keep_broken=keep)
            work[keep] = sum(rows)
    assert work[True] == 21 * 150
    assert work[False] < 0.6 * work[True]
    assert broken[True].sum() <= broken[False].sum()
    assert bool((broken[False] | ~broken[True]).all())


def test_more_starts_break_at_least_as_many_and_the_first_is_the_same(digits):
    broken = {}
    for restarts in (1, 4):
        with untouched(digits.model):
            settings = {"eps": 0.1, "steps": 3, "restarts": restarts}
            _, broken[restarts] = pgd(digits.model, digits.images, digits.labels, **settings)
    assert bool((broken[4] | ~broken[1]).all())
    assert broken[4].sum() > broken[1].sum()


def test_an_image_broken_on_the_way_counts_although_the_last_iterate_is_right():
    # Class 1 wins only for a pixel in (0.44, 0.56); each step goes up by 0.1 and ends far above.
    def model(x):
        return torch.cat([10 * (x - 0.5).abs() - 0.6 + 0.1 * (0.5 - x), torch.zeros_like(x)], dim=1)

    class Valley(nn.Module):
        def forward(self, x):
            return model(x.flatten(1))

    start = torch.full((1, 1, 1, 1), 0.3)
    settings = {"eps": 0.6, "steps": 2, "step_size": 0.2, "random_start": False}
    caught, broken = pgd(Valley(), start, torch.tensor([0]), **settings)
    assert broken.item()
    assert caught.item() == pytest.approx(0.5)


def test_one_step_by_hand():
    # logits (2 a, 0): cross-entropy of class 0 falls with a, so a goes down and b stays.
    class Linear(nn.Module):
        def forward(self, x):
            a = x.flatten(1)[:, :1]
            return torch.cat([2 * a, torch.zeros_like(a)], dim=1)

    images = torch.tensor([0.5, 0.5, 0.02, 0.3]).view(2, 1, 1, 2)
    got, _ = pgd(Linear(), images, torch.tensor([0, 0]), eps=0.1, steps=1, step_size=0.04, random_start=False)
    torch.testing.assert_close(got.flatten(), torch.tensor([0.46, 0.5, 0.0, 0.3]))


def test_one_l2_step_by_hand():
    # logits (3 a + 4 b, 0): the gradient of the margin is -(3, 4), of length 5, so the step is 0.05 * (0.6, 0.8).
    class Linear(nn.Module):
        def forward(self, x):
            a = (x.flatten(1) * torch.tensor([3.0, 4.0])).sum(1, keepdim=True)
            return torch.cat([a, torch.zeros_like(a)], dim=1)

    images = torch.full((1, 1, 1, 2), 0.5)
    settings = {"norm": "L2", "steps": 1, "loss": "margin", "random_start": False}
    got, _ = pgd(Linear(), images, torch.tensor([0]), eps=0.1, step_size=0.05, **settings)
    torch.testing.assert_close(got.flatten(), torch.tensor([0.47, 0.46]))
    # A step beyond the ball ends on its surface, in the same direction.
    got, _ = pgd(Linear(), images, torch.tensor([0]), eps=0.1, step_size=0.3, **settings)
    torch.testing.assert_close(got.flatten(), torch.tensor([0.44, 0.42]))


def test_step_size_scales_with_eps_and_reaches_the_far_side(digits):
    with untouched(digits.model):
        adversarial, _ = pgd(digits.model, digits.images, digits.labels, eps=0.02, keep_broken=True)
    moved = (adversarial - digits.images).abs()
    assert moved.amax().item() == pytest.approx(0.02, abs=1e-6)
    assert (moved > 0.0199).float().mean() > 0.3


def test_losses_by_hand():
    logits, labels = torch.tensor([[1.0, 3.0, 2.0], [4.0, 0.0, -1.0]]), torch.tensor([0, 0])
    assert _margin(logits, labels).item() == (3 - 1) + (0 - 4)
    assert _cross_entropy(logits, labels).item() == pytest.approx(-logits.log_softmax(1)[:, 0].sum().item())


def test_all_broken_at_once_stops():
    images = torch.rand(3, 1, 1, 2)
    wrong = 1 - images.flatten(1).argmax(1)
    adversarial, broken = pgd(nn.Flatten(), images, wrong, eps=0.1, random_start=False)
    assert torch.equal(adversarial, images)
    assert broken.all()


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
        ({"eps": 0.1, "norm": "L1"}, "norm='L1' does not exist"),
        ({"eps": 0.1, "restarts": 0}, "restarts=0 .* write 1"),
        ({"eps": -0.5, "norm": "L2"}, "eps=-0.5 is not a positive number"),
    ],
)
def test_wrong_settings_are_refused(settings, says):
    with pytest.raises(SparsityError, match=says):
        pgd(nn.Flatten(), torch.rand(2, 1, 1, 2), torch.tensor([0, 1]), **settings)
