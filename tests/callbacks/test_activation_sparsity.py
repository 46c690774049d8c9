"""What a training with sparse activations keeps, by hand; and arguments and layers that it refuses."""

import pytest
from lightning.pytorch import Callback
from torch import nn

import settings
from lightning_sparse import ActivationSparsity, Curve, SparsityError


def test_density_follows_the_curve_step_by_step_and_boost_the_epochs(loader, make_trainer):
    seen = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, *args):
            selection = callback.selections["head.weight"]
            seen.append((float(selection.density), float(selection.eval_density), float(selection.boost)))

    callback = ActivationSparsity(Curve(0.8).then(0.5, 0.2, "linear"), boost=2.0, boost_decay=0.5)
    make_trainer(callback, Watch(), max_epochs=2).fit(settings.Module(), loader)
    expected = [0.8 - 0.06 * step if step < 10 else 0.2 for step in range(20)]
    assert [density for density, _, _ in seen] == pytest.approx(expected)
    assert [density for _, density, _ in seen] == pytest.approx([min(1, 1.5 * density) for density in expected])
    assert [boost for _, _, boost in seen] == [2.0] * 10 + [1.0] * 10


def test_full_density_is_the_dense_training(loader, make_trainer):
    plain, full = settings.Module(), settings.Module()
    make_trainer(max_epochs=2).fit(plain, loader)
    make_trainer(ActivationSparsity(1.0), max_epochs=2).fit(full, loader)
    assert settings.same_state(plain, full)


def test_boost_makes_duties_even(loader, make_trainer):
    spread = []
    for boost in (0.0, 5.0):
        callback = ActivationSparsity(0.1, boost=boost, boost_decay=1.0)
        make_trainer(callback, max_epochs=4).fit(settings.Module(), loader)
        spread.append(float(callback.selections["body.3.weight"].mean.std()))
    assert spread[1] < spread[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"density": 0}, r"density=0 leaves a layer nothing to read: write a share in \(0, 1\]"),
        ({"density": Curve(1.0).then(0.5, 0.0)}, "leaves a layer nothing"),
        ({"density": 10}, "write 0.1 for 10 percent"),
        ({"density": 0.1, "rule": "kwta"}, "rule='kwta' does not exist"),
        ({"density": 0.1, "rule": "top_k", "boost": 1.0}, "leave it out"),
        ({"density": 0.1, "rule": "threshold", "eval_factor": 2.0}, "leave it out"),
        ({"density": 0.1, "boost": -1}, "boost=-1 is not a finite number of at least 0"),
        ({"density": 0.1, "eval_factor": 0.5}, "eval_factor=0.5 is not a finite number of at least 1"),
        ({"density": 0.1, "period": 0}, "period=0 is not an integer"),
    ],
)
def test_arguments_are_refused(arguments, says):
    with pytest.raises(SparsityError, match=says):
        ActivationSparsity(**arguments)


def test_layers_are_refused(loader, make_trainer):
    class One(settings.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Identity(), nn.Linear(64, 10)

    class Lazy(settings.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.LazyLinear(10)

    for model, callback, says in (
        (One(), ActivationSparsity(0.1), r"include=\['\*fc1\.weight'\]"),
        (settings.Module(), ActivationSparsity(0.1, include=["body.1.weight"]), "matches no parameter"),
        (Lazy(), ActivationSparsity(0.1), r"call model\(images\) once"),
    ):
        with pytest.raises(SparsityError, match=says):
            make_trainer(callback).fit(model, loader)
    named = ActivationSparsity(0.1, include=["body.0.weight"])
    make_trainer(named, max_epochs=1).fit(settings.Module(), loader)
    assert list(named.selections) == ["body.0.weight"]


def test_shares_of_a_training_without_a_known_length_are_refused(loader, make_trainer):
    class ByHand(settings.Module):
        automatic_optimization = False

    with pytest.raises(SparsityError, match=r"Curve\(1\.0\)\.then\(1000, 0\.1, 'linear'\)"):
        make_trainer(ActivationSparsity(Curve(1.0).then(0.9, 0.2, "linear"))).fit(ByHand(), loader)
