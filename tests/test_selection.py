import numpy as np
import pytest
import torch

from lightning_sparse.errors import SparsityError
from lightning_sparse.selection import highest, lowest


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("count", [0, 1, 17, 499, 500, 600])
def test_equals_a_stable_sort(dtype, count):
    scores = torch.randint(0, 40, (500,), generator=torch.Generator().manual_seed(1)).to(dtype)  # many ties
    order = np.argsort(scores.double().numpy(), kind="stable")
    expected = np.zeros(500, dtype=bool)
    expected[order[:count]] = True
    assert np.array_equal(lowest(scores, count).numpy(), expected)


def test_scores_are_left_as_they_were():
    scores = torch.rand(100)
    kept = scores.clone()
    lowest(scores, 30)
    highest(scores, 30)
    assert torch.equal(scores, kept)


def test_nan_is_refused():
    with pytest.raises(SparsityError, match="NaN"):
        lowest(torch.tensor([1.0, torch.nan, 2.0]), 1)


def test_infinities_rank():
    assert lowest(torch.tensor([torch.inf, 1.0, torch.inf]), 2).tolist() == [True, True, False]
    assert highest(torch.tensor([torch.inf, 1.0, 2.0]), 1).tolist() == [True, False, False]
