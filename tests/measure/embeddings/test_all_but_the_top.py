"""The top is what PCA says it is, it is gone from the centred vectors, and it is fitted on the rows asked for."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from lightning_sparse import SparsityError
from lightning_sparse.measure import all_but_the_top


def vectors(rows=300, size=12, seed=0):
    """A mean, and directions of unlike strength."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.randn(rows, size, generator=generator, dtype=torch.float64)
    return axes * torch.linspace(3, 0.5, size) @ torch.randn(size, size, generator=generator, dtype=torch.float64) + 2


def by_pca(table, count, fit):
    """Another way: scikit-learn's principal axes of the fitted rows."""
    pca = PCA(n_components=max(count, 1), svd_solver="full").fit(table[fit])
    centred = table - pca.mean_
    axes = pca.components_[:count]
    return centred - centred @ axes.T @ axes


@pytest.mark.parametrize("count", [0, 1, 2, 11])
@pytest.mark.parametrize("fit", [None, 40, "numbers", "bools"])
def test_it_is_what_principal_components_give(count, fit):
    table = vectors()
    chosen = torch.arange(0, 300, 3) if fit == "numbers" else torch.arange(300) % 3 == 0 if fit == "bools" else fit
    rows = slice(fit) if fit in (None, 40) else np.arange(0, 300, 3)
    found = all_but_the_top(table, count, chosen)
    assert np.allclose(found, by_pca(table.numpy(), count, rows), atol=1e-10)
    assert found.dtype == torch.float64
    assert table.equal(vectors())


def test_nothing_is_left_along_the_top_as_there_is_where_the_vectors_are_projected_uncentred():
    table = vectors()
    found = all_but_the_top(table, 2)
    axes = torch.linalg.svd(table - table.mean(0))[2][:2]
    assert float((found @ axes.T).abs().max()) < 1e-10
    printed = table - table.mean(0) - table @ axes.T @ axes  # as printed, and as everybody copies it
    left = printed @ axes.T
    assert torch.allclose(left, -(axes @ table.mean(0)).expand_as(left))
    assert float(left.abs().max()) > 0.1


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_other_types_are_computed_in_double_precision_and_given_back(dtype, near):
    table = vectors().to(dtype)
    found = all_but_the_top(table, 2)
    exact = all_but_the_top(table.double(), 2)
    assert found.dtype == dtype
    assert torch.equal(found, exact.to(dtype))
    assert torch.allclose(found.double(), exact, rtol=near, atol=near)


def test_large_tables_go_through_in_parts():
    table = vectors(rows=40_000, size=4).float()
    assert np.allclose(all_but_the_top(table, 1), by_pca(table.double().numpy(), 1, slice(None)), atol=1e-5)


@pytest.mark.parametrize(("size", "count"), [(12, 1), (149, 1), (151, 2), (300, 3)])
def test_a_hundredth_of_the_dimensions_by_default(size, count):
    table = vectors(rows=400, size=size)
    assert torch.equal(all_but_the_top(table), all_but_the_top(table, count))


def test_a_parameter_stays_as_it_is_and_takes_no_gradient():
    table = torch.nn.Parameter(vectors().float())
    found = all_but_the_top(table)
    assert not found.requires_grad
    assert torch.equal(table.detach(), vectors().float())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"vectors": torch.zeros(3)}, r"vectors.shape=\(3,\) is not \(rows, dimensions\)"),
        ({"vectors": torch.zeros(3, 1)}, r"vectors.shape=\(3, 1\)"),
        ({"vectors": torch.zeros(3, 4, dtype=torch.long)}, r"int64 is not floating point: write vectors.float\(\)"),
        ({"vectors": torch.full((3, 4), torch.nan)}, "vectors holds NaN or infinity"),
        ({"vectors": [[1.0, 2.0]]}, "vectors=list is no dense tensor"),
        ({"directions": 12}, r"directions=12 is not an integer in \[0, 11\]: write 11"),
        ({"directions": -1}, r"directions=-1 is not an integer in \[0, 11\]: write 0"),
        ({"directions": 1.0}, "directions=1.0 is not an integer"),
        ({"fit": 0}, r"fit=0 is not an integer in \[1, 300\]: write 1"),
        ({"fit": 301}, r"fit=301 is not an integer in \[1, 300\]: write 300"),
        ({"fit": torch.tensor([0, 300])}, r"does not name rows of 300: give row numbers in \[0, 300\)"),
        ({"fit": torch.tensor([-1])}, "does not name rows of 300"),
        ({"fit": torch.ones(299, dtype=torch.bool)}, "does not name rows of 300"),
        ({"fit": torch.ones(300)}, "does not name rows of 300"),
        ({"directions": 3, "fit": 3}, "fit leaves 3 rows, in which there are no 3 directions around a mean"),
        ({"fit": torch.zeros(300, dtype=torch.bool)}, "fit leaves 0 rows"),
    ],
)
def test_refused(arguments, says):
    with pytest.raises(SparsityError, match=says):
        all_but_the_top(**{"vectors": vectors(), **arguments})
