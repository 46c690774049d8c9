"""Any model becomes pixels to logits, or a SparsityError says what to write."""

import pytest
import torch
from lightning import LightningModule
from torch import nn

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure import as_classifier, measure_accuracy
from lightning_sparse.measure.classifier import batches, logits_of


class Dictionary(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return {"logits": self.model(x)}


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
        measure_accuracy(digits.model, (digits.images, digits.labels), mean=[0.5, 0.5, 0.5])


def test_what_is_no_module_is_refused():
    with pytest.raises(SparsityError, match="model=function is not a torch"):
        as_classifier(check_nothing)


def check_nothing():
    """Stand for whatever a user might give instead of a module."""


def test_a_model_with_other_outputs_needs_forward(digits):
    model = Dictionary(digits.model)
    with pytest.raises(SparsityError, match=r"write forward=lambda model, x: model\(x\)\['logits'\]"):
        measure_accuracy(model, (digits.images, digits.labels))
    adapted = measure_accuracy(model, (digits.images, digits.labels), forward=lambda model, x: model(x)["logits"])
    assert adapted.records == measure_accuracy(digits.model, (digits.images, digits.labels)).records


def test_a_model_that_takes_other_arguments_needs_forward(digits):
    with pytest.raises(SparsityError, match="Bilinear could not be called as model"):
        measure_accuracy(nn.Bilinear(8, 8, 10), (digits.images, digits.labels))
    with pytest.raises(SparsityError, match="Module could not be called as model"):
        measure_accuracy(nn.Module(), (digits.images, digits.labels))


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


def test_the_wrapper_is_in_the_models_mode(digits):
    assert not as_classifier(digits.model.eval()).training
    assert as_classifier(digits.model.train()).training


def test_a_model_that_writes_into_its_input_does_not_change_the_images(digits):
    images = digits.images.clone()
    measure_accuracy(digits.model, (images, digits.labels), forward=lambda model, x: model(x.sub_(0.1)))
    assert torch.equal(images, digits.images)


def test_one_row_per_image_is_wanted(digits):
    with pytest.raises(SparsityError, match="1 rows of logits for 150 images"):
        measure_accuracy(digits.model, (digits.images, digits.labels), forward=lambda model, x: model(x)[:1])


def test_batch_size_is_checked():
    for wrong in (0, 2.5, True):
        with pytest.raises(SparsityError, match="batch_size"):
            list(batches(wrong, torch.device("cpu"), torch.zeros(3)))


def test_probabilities_are_refused_but_not_for_one_row_that_looks_like_them(digits):
    with pytest.raises(SparsityError, match="gives probabilities"):
        measure_accuracy(nn.Sequential(digits.model, nn.Softmax(1)), (digits.images, digits.labels))
    assert as_classifier(nn.Flatten())(torch.tensor([0.25, 0.75]).view(1, 1, 1, 2)).tolist() == [[0.25, 0.75]]
