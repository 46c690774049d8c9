"""Two tensors and loaders give the same, and no more of a loader is read than was asked for."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_sparse import SparsityError
from lightning_sparse.measure.images_and_labels import images_and_labels

IMAGES, LABELS = torch.rand(10, 1, 2, 2), torch.arange(10) % 3


def test_a_loader_gives_what_two_tensors_give():
    loader = DataLoader(TensorDataset(IMAGES, LABELS, LABELS), batch_size=4)  # lists of three
    for data in ((IMAGES, LABELS), [IMAGES, LABELS], loader, ((IMAGES[i : i + 5], LABELS[i : i + 5]) for i in (0, 5))):
        images, labels = images_and_labels(data)
        assert torch.equal(images, IMAGES)
        assert torch.equal(labels, LABELS)


def test_no_batch_is_read_that_is_not_needed():
    read = []

    def stream():
        for start in range(0, 10, 2):
            read.append(start)
            yield IMAGES[start : start + 2], LABELS[start : start + 2]

    images, labels = images_and_labels(stream(), most=3)
    assert (len(images), len(labels), read) == (3, 3, [0, 2])
    assert len(images_and_labels((IMAGES, LABELS), most=3)[0]) == 3


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (IMAGES, "write (images, labels)"),
        (3, "write (images, labels)"),
        ([], "holds no batch"),
        ("abc", "data is a str, not images and labels: write (images, labels)"),
        (None, "data is a NoneType"),
        ([{"image": IMAGES}], "a batch of data is a dict with keys 'image', not (images, labels): give a generator"),
        ([IMAGES], "a batch of data is a Tensor, not (images, labels): let its data set give a label"),
        ([[IMAGES]], "a batch of data is a list of Tensor"),
        ((IMAGES[:, 0], LABELS), "images have shape (10, 2, 2), not (n, C, H, W)"),
        ((IMAGES.flatten(1), LABELS), "images have shape (10, 4), not (n, C, H, W)"),
        ((IMAGES, LABELS[:9]), "labels have shape (9,), not (10,)"),
        ((IMAGES[:0], LABELS[:0]), "n >= 1"),
        (
            [(IMAGES, LABELS), (torch.rand(2, 1, 3, 3), LABELS[:2])],
            "shapes (1, 2, 2) and (1, 3, 3): give all of one size",
        ),
    ],
)
def test_anything_but_images_and_labels_is_refused(data, says):
    with pytest.raises(SparsityError, match=r".") as error:
        images_and_labels(data)
    assert says in str(error.value)


@pytest.mark.parametrize("most", [0, True, 2.0])
def test_most_is_a_positive_integer(most):
    with pytest.raises(SparsityError, match="most="):
        images_and_labels((IMAGES, LABELS), most)


@pytest.mark.parametrize(
    ("data", "call"),
    [
        ({"image": IMAGES, "y": LABELS, "id": "a"}, "(data['image'], data['y'])"),
        ([{"x": IMAGES, "y": LABELS}], "((batch['x'], batch['y']) for batch in data)"),
        ((IMAGES.numpy(), LABELS.numpy()), "(torch.as_tensor(images), torch.as_tensor(labels))"),
        ((IMAGES, LABELS.tolist()), "(torch.as_tensor(images), torch.as_tensor(labels))"),
        (
            [(IMAGES.numpy(), LABELS.numpy())],
            "((torch.as_tensor(images), torch.as_tensor(labels)) for images, labels in data)",
        ),
        (TensorDataset(IMAGES, LABELS), "torch.utils.data.DataLoader(data, batch_size=256)"),
    ],
)
def test_what_the_message_says_is_taken(data, call):
    with pytest.raises(SparsityError, match=r".") as error:
        images_and_labels(data)
    assert f"write {call}" in str(error.value)
    one = {"images": data[0], "labels": data[1]} if isinstance(data, tuple) else {}
    images, labels = images_and_labels(eval(call, {"torch": torch, "data": data, **one}))
    assert torch.equal(images, IMAGES)
    assert torch.equal(labels, LABELS)


def test_the_argument_is_named():
    with pytest.raises(SparsityError, match="calibration is a int"):
        images_and_labels(3, name="calibration")
