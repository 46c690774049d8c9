"""Any model becomes pixels to logits, or a SparsityError says what to write, and writing that helps."""

from types import SimpleNamespace

import pytest
import torch
from lightning import LightningModule
from torch import nn
from torch.nn import functional as F

from advised import call_in
from lightning_sparse.errors import SparsityError
from lightning_sparse.measure import (
    as_classifier,
    measure_accuracy,
    measure_cost,
    measure_description_length,
    measure_hessian,
    measure_jacobian,
    measure_robustness,
    storage_formats,
)
from lightning_sparse.measure.classifier import batches, logits_of


class Saying(nn.Module):
    """A model that makes something else of its logits."""

    def __init__(self, inner, says):
        super().__init__()
        self.inner = inner
        self.says = says

    def forward(self, x):
        return self.says(self.inner(x))


class Asking(Saying):
    """A model that asks for more than images."""

    def forward(self, x, more):
        return self.inner(x)


def as_advised(error, model, part):
    """The classifier that a message says to write, ``part`` being what it leaves to its reader."""
    call = call_in(error, "as_classifier(model, ").replace("...", part)
    return eval(call, {"as_classifier": as_classifier, "model": model, "torch": torch})


def test_normalisation_is_applied_inside():
    model = nn.Flatten()
    images = torch.rand(3, 2, 1, 2)
    got = as_classifier(model, mean=[0.1, 0.2], std=[0.5, 0.25])(images)
    expected = torch.stack([(images[:, 0] - 0.1) / 0.5, (images[:, 1] - 0.2) / 0.25], dim=1).flatten(1)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"mean": 0.5}, "mean=0.5"),
        ({"mean": []}, "one number per channel"),
        ({"mean": ["a"]}, "one number per channel"),
        ({"std": [0.0]}, "not positive"),
        ({"mean": [0.5], "std": [0.2, 0.2]}, "mean has 1 channels and std has 2"),
        ({"forward": "logits"}, "cannot be called"),
    ],
)
def test_wrong_settings_are_refused(digits, settings, says):
    with pytest.raises(SparsityError, match=says):
        as_classifier(digits.model, **settings)


def test_channels_that_do_not_fit_are_refused(digits):
    with pytest.raises(SparsityError, match="mean has 3 channels and the images have 1"):
        measure_accuracy(as_classifier(digits.model, mean=[0.5, 0.5, 0.5]), (digits.images, digits.labels))


def test_anything_but_a_module_is_refused():
    with pytest.raises(SparsityError, match="model=function is not a torch"):
        as_classifier(check_nothing)


def check_nothing():
    """Stand for whatever a user might give instead of a module."""


@pytest.mark.parametrize(
    ("says", "message", "part"),
    [
        (lambda z: {"logits": z}, r"forward=lambda model, x: model\(x\)\['logits'\]\)", ""),
        (lambda z: {"features": z, "logits": z}, r"a dict of 'features' \(150, 10\), 'logits' \(150, 10\)", ""),
        (lambda z: {"scores": z, "loss": z.mean()}, r"a dict of 'scores' \(150, 10\), 'loss' \(\), not logits", ""),
        (lambda z: {"features": z, "scores": z}, r"model\(x\)\[...\]\) with the logits.* in place of", "'scores'"),
        (lambda z: (z, None), r"a tuple of 2 \(\(150, 10\), NoneType\)", ""),
        (lambda z: [z[:, :1], z], "a list of 2", ""),
        (lambda z: (-z, z), r"model\(x\)\[...\]\) with the logits", "1"),
        (lambda z: None, "a NoneType, not logits", "model.inner(x)"),
        (lambda z: SimpleNamespace(logits=z), "a SimpleNamespace", ""),
        (lambda z: z.softmax(1), "gives probabilities", ""),
        (lambda z: z.argmax(1, keepdim=True).expand(-1, 10), "int64, not logits", "model.inner(x)"),
        (lambda z: z.view(-1, 10, 1, 1), r"shape \(150, 10, 1, 1\)", "model(x).flatten(1)"),
    ],
)
def test_a_model_with_other_outputs_is_measured_by_what_the_message_says(digits, says, message, part):
    model, data = Saying(digits.model, says), (digits.images, digits.labels)
    with pytest.raises(SparsityError, match=message) as error:
        measure_accuracy(model, data)
    found = measure_accuracy(as_advised(error, model, part), data).records[0]
    assert found == measure_accuracy(digits.model, data).records[0]


@pytest.mark.parametrize("shape", [(-1, 1), (-1,)])
@pytest.mark.parametrize("probabilities", [False, True])
def test_a_model_of_one_output_is_measured_by_what_the_message_says(digits, shape, probabilities):
    """Its sign, or whether its probability is above a half, is the class: anything else gives another accuracy."""

    def says(z):
        one = z[:, 1:2] - z[:, :1]
        return (one.sigmoid() if probabilities else one).view(shape)

    model, data = Saying(digits.model, says), (digits.images, digits.labels % 2)
    with pytest.raises(SparsityError, match="one number per image") as error:
        measure_accuracy(model, data)
    found = measure_accuracy(as_advised(error, model, ""), data)
    assert found.arrays["prediction"].tolist() == digits.model.eval()(digits.images)[:, :2].argmax(dim=1).tolist()
    if probabilities:
        assert "if it is a probability (these lie in [0, 1]), or" in str(error.value)


@pytest.mark.parametrize("pads", [(1, 0), (0, 1)])
def test_padded_probabilities_are_refused_and_the_message_says_what_to_pad(digits, pads):
    probability = Saying(digits.model, lambda z: (z[:, 1:2] - z[:, :1]).sigmoid())
    padded = as_classifier(probability, forward=lambda model, x: F.pad(model(x), pads))
    data = digits.images, digits.labels % 2
    with pytest.raises(SparsityError, match="one of zeros and one of probabilities") as error:
        measure_accuracy(padded, data)
    call = call_in(error, "torch.nn.functional.pad(")
    right = as_classifier(probability, forward=lambda model, x: eval(call, {"torch": torch, "p": model(x)}))
    expected = digits.model.eval()(digits.images)[:, :2].argmax(dim=1)
    assert measure_accuracy(right, data).arrays["prediction"].tolist() == expected.tolist()


def test_a_dead_model_and_one_of_two_logits_are_no_padded_probabilities(digits):
    labels = digits.labels % 2
    for says in (torch.zeros_like, lambda z: F.pad(z[:, :1], (1, 0)), lambda z: F.pad(z[:, :1].sigmoid() / 3, (1, 0))):
        model = Saying(digits.model, lambda z, says=says: says(z)[:, :2])
        assert measure_accuracy(model, (digits.images, labels)).records[0].n == 150


def test_images_of_another_size_are_refused_with_both_sizes(digits):
    for images in (torch.rand(4, 1, 9, 9), torch.rand(4, 3, 8, 8)):
        shape = ", ".join(map(str, images.shape[1:]))
        with pytest.raises(SparsityError, match=rf"model=Sequential does not take images of shape \(n, {shape}\): "):
            measure_accuracy(digits.model, (images, torch.arange(4)))


def test_an_error_of_a_users_own_is_left_as_it_is(digits):
    def fails(model, x):
        raise KeyError("planted")

    with pytest.raises(KeyError, match="planted"):
        measure_accuracy(as_classifier(digits.model, forward=fails), (digits.images, digits.labels))


def test_features_without_pixels_are_measured_by_what_the_message_says(digits):
    model, data = nn.Linear(64, 10), (digits.images.flatten(1), digits.labels)
    with pytest.raises(SparsityError, match=r"images have shape \(150, 64\), not \(n, C, H, W\)") as error:
        measure_accuracy(model, data)
    assert "write images[:, :, None, None]" in str(error.value)
    found = measure_accuracy(as_advised(error, model, ""), (data[0][:, :, None, None], data[1]))
    assert found.arrays["prediction"].tolist() == model(data[0]).argmax(dim=1).tolist()


def test_a_class_in_place_of_its_object_and_a_model_without_values_are_refused():
    with pytest.raises(
        SparsityError, match=r"model=Flatten is not a torch.nn.Module: give Flatten\(\), an object of it"
    ):
        as_classifier(nn.Flatten)
    with pytest.raises(SparsityError, match="model=Linear is on the meta device"):
        as_classifier(nn.Linear(2, 2, device="meta"))


def test_a_model_that_takes_other_arguments_is_measured_by_what_the_message_says(digits):
    model, data = Asking(digits.model, None), (digits.images, digits.labels)
    with pytest.raises(SparsityError, match="Asking could not be called as model") as error:
        measure_accuracy(model, data)
    assert measure_accuracy(as_advised(error, model, "model(x, 1)"), data).records[0].value > 0.8
    with pytest.raises(SparsityError, match="Module could not be called as model"):
        measure_accuracy(nn.Module(), data)


@pytest.mark.parametrize(
    "measure", [measure_jacobian, lambda *args: measure_robustness(*args, eps=[0.1], tier="monitor")]
)
def test_a_model_that_detaches_is_measured_by_what_the_message_says(digits, measure):
    model, data = Saying(digits.model, torch.Tensor.detach), (digits.images[:20], digits.labels[:20])
    with pytest.raises(SparsityError, match="no gradient") as error:
        measure(model, data)
    assert measure(as_advised(error, model, "model.inner(x)"), data).records[0].n == 20


def test_images_that_are_normalised_already_are_measured_by_what_the_message_says(digits):
    with pytest.raises(SparsityError, match="write the pixels as they were") as error:
        measure_accuracy(digits.model, ((digits.images - 0.5) / 0.25, digits.labels))
    classifier = as_advised(error, digits.model, "")
    digits.model.eval()
    expected = digits.model((digits.images - 0.5) / 0.25)
    torch.testing.assert_close(classifier(digits.images), expected)


def test_a_function_is_measured_by_what_the_message_says(digits):
    with pytest.raises(SparsityError, match="give the module, or write") as error:
        measure_accuracy(lambda x: digits.model(x), (digits.images, digits.labels))
    classifier = as_advised(error, digits.model, "model(x)")
    assert measure_accuracy(classifier, (digits.images, digits.labels)).records[0].value > 0.8


def test_lightning_modules_are_modules(digits):
    class Classifier(LightningModule):
        def __init__(self):
            super().__init__()
            self.net = digits.model

        def forward(self, x):
            return self.net(x)

    got = measure_accuracy(Classifier(), (digits.images, digits.labels))
    assert got.records == measure_accuracy(digits.model, (digits.images, digits.labels)).records


def test_other_precisions_are_met_at_the_door():
    images, labels = torch.rand(6, 1, 2, 2, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])
    for dtype in (torch.float64, torch.bfloat16):
        model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).to(dtype)
        assert logits_of(as_classifier(model), images, labels).dtype == torch.float32
        assert model[1].weight.dtype == dtype


def test_a_classifier_is_wrapped_once(digits):
    classifier = as_classifier(digits.model)
    assert as_classifier(classifier) is classifier


@pytest.mark.parametrize("measure", [measure_cost, measure_description_length, measure_hessian, storage_formats])
def test_masks_are_named_by_the_parameters_of_the_model_inside(measure):
    model, data = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), (torch.rand(6, 1, 2, 2), torch.arange(6) % 3)
    model[1].weight.data[:, 0] = 0
    settings = {"masks": {"1.weight": model[1].weight != 0}}
    data = [] if measure is storage_formats else [data]
    normalised = as_classifier(model, mean=[0.0], std=[1.0])
    assert measure(normalised, *data, **settings).records[-1] == measure(model, *data, **settings).records[-1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_normalisation_goes_where_the_model_goes():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    classifier = as_classifier(model, mean=[0.5], std=[0.25])
    model.to("cuda")
    assert logits_of(classifier, torch.rand(6, 1, 2, 2), torch.arange(6) % 3).shape == (6, 3)


def test_the_wrapper_is_in_the_models_mode(digits):
    assert not as_classifier(digits.model.eval()).training
    assert as_classifier(digits.model.train()).training


def test_a_model_that_writes_into_its_input_does_not_change_the_images(digits):
    images = digits.images.clone()
    measure_accuracy(as_classifier(digits.model, forward=lambda model, x: model(x.sub_(0.1))), (images, digits.labels))
    assert torch.equal(images, digits.images)


def test_one_row_per_image_is_wanted(digits):
    with pytest.raises(SparsityError, match="1 rows of logits for 150 images"):
        measure_accuracy(
            as_classifier(digits.model, forward=lambda model, x: model(x)[:1]), (digits.images, digits.labels)
        )


def test_batch_size_is_checked():
    for wrong in (0, 2.5, True):
        with pytest.raises(SparsityError, match="batch_size"):
            list(batches(wrong, torch.device("cpu"), torch.zeros(3)))


def test_probabilities_are_refused_but_not_for_one_row_that_looks_like_them(digits):
    with pytest.raises(SparsityError, match="gives probabilities"):
        measure_accuracy(nn.Sequential(digits.model, nn.Softmax(1)), (digits.images, digits.labels))
    assert as_classifier(nn.Flatten())(torch.tensor([0.25, 0.75]).view(1, 1, 1, 2)).tolist() == [[0.25, 0.75]]
