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
        ([{"image": IMAGES}], "give a generator"),
        ([IMAGES], "a batch of the loader is a Tensor"),
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
