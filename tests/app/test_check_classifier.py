"""A module that cannot be measured as it is asked is refused before its training, with what helps on the command line."""

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from lightning_sparse import SparsityError
from lightning_sparse.app.measuring.measurements import measurements_of
from lightning_sparse.app.train import check_classifier
from lightning_sparse.data.images import ImageData
from lightning_sparse.models.classifier import Classifier
from lightning_sparse.models.networks import small_cnn

ATTACK = {
    "eps": [0.1],
    "norm": "Linf",
    "tier": "sweep",
    "attacks": None,
    "steps": None,
    "restarts": None,
    "images": 50,
    "first": False,
}
SALIENCY = {"methods": ["gradient", "grad_cam"], "measures": ["gini"], "max_sensitivity": [], "images": 20, "seed": 0}
NOTHING = {
    "data": {"name": "digits"},
    "attack": {"eps": []},
    "saliency": {"methods": []},
    "stability": {"images": 0},
    "transfer": {"images": 0},
    "cost": {"images": 0},
    "vog": {"images": 0},
}


@pytest.fixture(scope="module")
def data():
    images = ImageData("digits", shape=(1, 8, 8), classes=10, mean=[0.3], std=[0.4])
    images.setup()
    return images


class Own(LightningModule):
    def __init__(self, forward, size=64):
        super().__init__()
        self.net, self.own = nn.Sequential(nn.Flatten(), nn.Linear(size, 10)), forward

    def forward(self, images):
        return self.own(self.net, images)


def check(model, data, **asked):
    check_classifier(model, data, measurements_of(NOTHING | asked))


ALL = {
    "attack": ATTACK,
    "saliency": SALIENCY,
    "stability": {"images": 10, "hessian_images": 10},
    "transfer": {"images": 5, "eps": None, "steps": 20, "seed": 0},
}


def test_a_classifier_passes_and_stays_as_it_is(data):
    model = Classifier(small_cnn((1, 8, 8), 10), mean=[0.3], std=[0.4])
    before, state = [parameter.clone() for parameter in model.parameters()], torch.get_rng_state()
    check(model, data, **ALL)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert torch.equal(state, torch.get_rng_state())
    assert model.training


def test_outputs_that_are_no_logits_are_refused_and_what_the_message_says_is_taken(data):
    for says, written in (
        (
            lambda net, x: {"scores": net(x), "loss": None},
            "`return outputs['scores']` where your module's forward() returns outputs",
        ),
        (lambda net, x: (net(x), x), "`return outputs[0]` where your module's forward() returns outputs"),
        (
            lambda net, x: net(x).softmax(1),
            "`return outputs.clamp_min(1e-30).log()` where your module's forward() returns outputs",
        ),
    ):
        with pytest.raises(SparsityError, match="not logits") as error:
            check(Own(says), data)
        assert written in str(error.value)
        code = written.removeprefix("`return ").removesuffix("` where your module's forward() returns outputs")
        check(Own(lambda net, x, says=says, code=code: eval(code, {"outputs": says(net, x)})), data)


@pytest.mark.parametrize(
    ("group", "kind"), [("attack", "robust"), ("saliency", "saliency"), ("stability", "stability")]
)
def test_without_a_gradient_it_is_refused_by_what_asks_for_one_and_left_out_as_the_message_says(group, kind, data):
    model = Own(lambda net, x: net((x > 0.5).float()))
    with pytest.raises(SparsityError, match=f"no gradient in the pixels.*; or write {group}=none to leave {kind} out"):
        check(model, data, **{group: ALL[group]})
    check(model, data)


def test_attacks_without_gradients_are_taken_as_the_message_says(data):
    model = Own(lambda net, x: net((x > 0.5).float()))
    with pytest.raises(SparsityError, match=r"write attack\.attacks=\[square\] with attack\.tier=monitor"):
        check(model, data, attack=ATTACK)
    check(model, data, attack=ATTACK | {"attacks": ["square"], "tier": "monitor"})


def test_images_of_a_size_that_it_does_not_take_are_refused(data):
    with pytest.raises(SparsityError, match=r"model=Own does not take images of shape \(n, 1, 8, 8\): .*mat1 and mat2"):
        check(Own(lambda net, x: net(x), size=784), data)


def test_what_takes_more_than_images_is_refused(data):
    class Asking(Own):
        def forward(self, images, labels):
            return self.net(images)

    for model in (Asking(None), LightningModule()):
        with pytest.raises(SparsityError, match=r"cannot be called as model\(images\)"):
            check(model, data)


def test_what_cannot_be_called_yet_is_not_checked(data):
    def later(net, x):
        raise RuntimeError("Own is not attached to a `Trainer`.")

    check(Own(later), data, **ALL)
    check(Own(lambda net, x: net.later(x)), data, **ALL)


def test_a_layer_of_the_model_is_looked_for(data):
    model = Classifier(small_cnn((1, 8, 8), 10), mean=[0.3], std=[0.4])
    check(model, data, saliency=SALIENCY | {"layer": "net.0"})
    with pytest.raises(SparsityError, match=r"layer='net\.00' is no layer of the model: did you mean 'net\.0'"):
        check(model, data, saliency=SALIENCY | {"layer": "net.00"})


def test_no_layer_leaves_the_key_of_a_measurement_as_it_was():
    def key(saliency):
        return [m.key for m in measurements_of(NOTHING | {"saliency": saliency}) if m.kind.name == "saliency"]

    assert key(SALIENCY) == key(SALIENCY | {"layer": None}) != key(SALIENCY | {"layer": "net.0"})
