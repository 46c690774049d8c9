import pytest
import torch

from lightning_sparse import SparsityError, sparsifiable
from lightning_sparse.models import Classifier, lenet_300_100, resnet18, resnet20, small_cnn


@pytest.mark.parametrize(
    ("make", "shape", "weights"),
    [
        (lenet_300_100, (1, 28, 28), 784 * 300 + 300 * 100 + 100 * 10),
        (lenet_300_100, (1, 8, 8), 64 * 300 + 300 * 100 + 100 * 10),
        (small_cnn, (1, 28, 28), 9 * 32 + 9 * 32 * 64 + 64 * 49 * 128 + 128 * 10),
        # He et al. 2016: 0.27 M; the shortcuts here are 1x1 convolutions (2,560 weights).
        (resnet20, (3, 32, 32), 432 + 6 * 2304 + 4608 + 5 * 9216 + 18432 + 5 * 36864 + 512 + 2048 + 640),
        (resnet18, (3, 32, 32), 11_164_352),
    ],
)
def test_networks_have_the_weights_of_their_papers_and_give_logits(make, shape, weights):
    net = make(shape, 10)
    assert sum(weight.numel() for weight in sparsifiable(net).values()) == weights
    assert net(torch.rand(2, *shape)).shape == (2, 10)


def test_normalisation_is_in_the_model():
    model = Classifier(torch.nn.Flatten(), mean=[0.5, 0.1], std=[0.25, 0.5])
    images = torch.rand(3, 2, 2, 2)
    expected = (images - torch.tensor([0.5, 0.1]).view(2, 1, 1)) / torch.tensor([0.25, 0.5]).view(2, 1, 1)
    assert torch.allclose(model(images), expected.flatten(1))


def test_an_unknown_schedule_is_refused():
    with pytest.raises(SparsityError, match="did you mean 'cosine'"):
        Classifier(torch.nn.Flatten(), mean=[0.5], std=[0.5], schedule="cosin")
