import pytest
import torch

from lightning_sparse import Masks, SparsityError
from lightning_sparse.app.train import counted_sparsity
from lightning_sparse.models.classifier import Classifier


def test_sparsity_is_counted_in_the_model_and_a_rewritten_weight_is_named():
    model = Classifier(torch.nn.Linear(4, 2), mean=[0.5], std=[0.5])
    masks = Masks({"net.weight": torch.tensor([[True, False, False, False], [True, True, False, False]])})
    with pytest.raises(SparsityError, match="5 masked weights of the trained model are not zero"):
        counted_sparsity(model, masks)
    masks.apply({"net.weight": model.net.weight})
    assert counted_sparsity(model, masks) == 5 / 8
    model.net.weight.data[0, 3] = 1e-9  # as an average of weights leaves it
    with pytest.raises(SparsityError, match="1 masked weights"):
        counted_sparsity(model, masks)
    assert counted_sparsity(model, None) == 0.0
