"""Isotropy against other ways to compute it: all pairs one by one, sums as they are, the seven steps of the paper."""

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from lightning_sparse.measure.embeddings.isotropy import iso_score, mean_cosine, partition


def table(rows=60, size=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scaled = torch.randn(rows, size, generator=generator) * torch.tensor([3.0, 1, 1, 0.5, 0.2][:size])
    return scaled + 0.5


def seven_steps(points):
    """IsoScore as Rudman et al. write it: PCA, the diagonal of its covariance, the defect, the share of dimensions."""
    n = points.shape[1]
    turned = PCA(n_components=n).fit_transform(points)
    diagonal = np.diag(np.cov(turned.T))
    normalised = math.sqrt(n) * diagonal / np.linalg.norm(diagonal)
    defect = np.linalg.norm(normalised - np.ones(n)) / math.sqrt(2 * (n - math.sqrt(n)))
    share = (n - defect**2 * (n - math.sqrt(n))) ** 2 / n**2
    return (n * share - 1) / (n - 1)


@pytest.mark.parametrize("seed", range(5))
def test_iso_score_is_what_its_seven_steps_give(seed):
    points = table(seed=seed)
    assert iso_score(points) == pytest.approx(seven_steps(points.double().numpy()), abs=1e-12)


@pytest.mark.parametrize("used", [1, 2, 3, 5])
def test_iso_score_counts_the_dimensions_in_use(used):
    points = torch.cat([torch.eye(5)[:used], -torch.eye(5)[:used]])
    assert iso_score(points) == pytest.approx((used - 1) / 4)
    assert iso_score(7 * points + 3) == pytest.approx((used - 1) / 4)


def test_mean_cosine_is_that_of_all_pairs():
    points = table().double()
    unit = torch.nn.functional.normalize(points)
    pairs = [float(unit[i] @ unit[j]) for i in range(60) for j in range(60) if i != j]
    assert mean_cosine(points) == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)


def test_partition_is_the_ratio_of_the_sums():
    points = table().double().numpy()
    axes = np.linalg.svd(points, full_matrices=False)[2]  # the eigenvectors of V'V, another way
    sums = [np.exp(sign * points @ axis).sum() for axis in axes for sign in (1, -1)]
    assert partition(torch.tensor(points)) == pytest.approx(min(sums) / max(sums), rel=1e-9)


def test_partition_neither_overflows_nor_depends_on_the_order():
    large = 1e4 * table(rows=40_000)
    assert partition(large) == partition(large.flip(0)) == 0.0
    far = table(rows=40_000) + 600  # exp(600) is no number of float32, and the ratio is far below one
    assert 0.0 <= partition(far) < 1e-300


def test_equal_rows_have_no_iso_score():
    assert math.isnan(iso_score(torch.ones(3, 2)))
    assert math.isnan(mean_cosine(torch.ones(1, 2)))
