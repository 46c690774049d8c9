"""What pruning forgets, by hand and against scipy."""

import numpy as np
import pytest
import torch
from scipy import stats

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure.forgetting.forgotten import measure_forgotten, vog_overlap

LABELS = np.array([0, 0, 0, 1, 1, 1, 2, 2])
DENSE = np.array(
    [
        [0, 0, 0, 1, 1, 1, 2, 2],
        [0, 0, 1, 1, 1, 0, 2, 2],
        [0, 0, 1, 1, 1, 2, 2, 0],
    ]
)
# Modes: 0 0 1 1 1 tied 2 2
SPARSE = np.array(
    [
        [0, 1, 0, 1, 1, 1, 2, 0],
        [0, 1, 0, 1, 2, 1, 2, 0],
        [0, 0, 0, 1, 0, 1, 2, 2],
    ]
)
# Modes: 0 1 0 1 tied 1 2 0


@pytest.fixture
def found():
    return measure_forgotten(SPARSE, DENSE, LABELS)


def row(found, metric, condition=""):
    (record,) = (record for record in found.records if (record.metric, record.condition) == (metric, condition))
    return record


def test_modes_and_what_is_forgotten_by_hand(found):
    assert found.arrays["dense_mode"].tolist() == [0, 0, 1, 1, 1, -1, 2, 2]
    assert found.arrays["sparse_mode"].tolist() == [0, 1, 0, 1, -1, 1, 2, 0]
    assert found.arrays["forgotten"].tolist() == [False, True, True, False, False, False, False, True]
    share = row(found, "forgotten_share")
    assert (share.value, share.n) == (3 / 6, 6)  # image 2 too, which the sparse have right and the dense wrong
    interval = stats.binomtest(3, 6).proportion_ci(method="wilson")
    assert (share.low, share.high) == pytest.approx((interval.low, interval.high))
    assert "2 tied, left out" in share.detail


def test_the_accuracy_of_single_dense_models_by_hand(found):
    there, elsewhere = row(found, "forgotten_dense_accuracy"), row(found, "forgotten_dense_accuracy_elsewhere")
    assert (there.value, there.n) == (pytest.approx((3 + 1 + 2) / 9), 3)
    half = 1.959964 * np.std([1, 1 / 3, 2 / 3], ddof=1) / 3**0.5
    assert (there.low, there.high) == pytest.approx((2 / 3 - half, 2 / 3 + half), rel=1e-5)
    assert (elsewhere.value, elsewhere.n) == (1.0, 3)  # images 0, 3 and 6; the tied ones belong to neither


def test_agreement_is_the_mean_over_all_pairs(found):
    record = row(found, "forgotten_agreement")
    assert record.value == pytest.approx(np.mean([(s == d).mean() for s in SPARSE for d in DENSE]))
    among = np.mean([(DENSE[i] == DENSE[j]).mean() for i, j in ((0, 1), (0, 2), (1, 2))])
    assert f"dense models among themselves: {among:.4f}" in record.detail
    assert record.n == 8


def test_fewer_than_five_models_are_noisy_and_one_makes_no_claim(found):
    assert all("3 sparse and 3 dense models: noisy, fewer than 5" in record.detail for record in found.records)
    single = measure_forgotten(SPARSE[:1], DENSE[:1], LABELS)
    assert all("no claim about sparsity" in record.detail for record in single.records)
    agreed = row(single, "forgotten_agreement")
    assert agreed.value == row(single, "forgotten_share").value + 0.5 == 6 / 8
    interval = stats.binomtest(6, 8).proportion_ci(method="wilson")
    assert (agreed.low, agreed.high) == pytest.approx((interval.low, interval.high))
    shift = row(single, "forgotten_recall_shift", "class 0")
    assert shift.value == pytest.approx(2 / 3 - 1)
    assert np.isnan([shift.low, shift.high]).all()
    assert "no test: fewer than two models" in shift.detail


def made(shares, n, generator):
    """Predictions of labels 0, 1, 2 (n of each) of as many models as there are shares; 3 stands for wrong."""
    right = generator.random((len(shares), 3, n)) < np.asarray(shares)[:, :, None]
    return np.where(right, np.arange(3)[None, :, None], 3).reshape(len(shares), -1)


def test_recall_shifts_are_scipys_welch_adjusted_by_holm():
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 200)
    dense = made([[0.9, 0.9, 0.9]] * 6, 200, generator)
    sparse = made([[0.9, 0.85, 0.5]] * 5, 200, generator)
    found = measure_forgotten(torch.from_numpy(sparse), torch.from_numpy(dense), torch.from_numpy(labels))
    p_values = []
    for c in range(3):
        recalls = [(part[:, labels == c] == c).mean(axis=1) for part in (sparse, dense)]
        expected = stats.ttest_ind(*recalls, equal_var=False)
        record, interval = row(found, "forgotten_recall_shift", f"class {c}"), expected.confidence_interval()
        assert record.value == pytest.approx(recalls[0].mean() - recalls[1].mean())
        assert (record.low, record.high) == pytest.approx((interval.low, interval.high))
        assert record.n == 200
        p_values.append(expected.pvalue)
    running = 0.0
    for rank, c in enumerate(np.argsort(p_values)):
        running = min(1.0, max(running, (3 - rank) * p_values[c]))
        detail = row(found, "forgotten_recall_shift", f"class {c}").detail
        assert f"Holm-adjusted p = {running:.3g} of 3 tests" in detail
        assert ("not significant" in detail) == (running >= 0.05)
    assert "; significant" in row(found, "forgotten_recall_shift", "class 2").detail
    assert "noisy" not in found.records[0].detail


def test_where_no_model_differs_from_another_there_is_no_test_and_nothing_is_forgotten():
    same = np.tile(LABELS, (5, 1))
    found = measure_forgotten(same, same, LABELS)
    assert row(found, "forgotten_share").value == 0.0
    nowhere = row(found, "forgotten_dense_accuracy")
    assert (np.isnan(nowhere.value), nowhere.n) == (True, 0)
    assert "undefined" in nowhere.detail
    shift = row(found, "forgotten_recall_shift", "class 1")
    assert (shift.value, np.isnan(shift.low)) == (0.0, True)
    assert "models of a side do not differ" in shift.detail


def test_if_every_image_is_tied_the_share_is_undefined():
    found = measure_forgotten(np.array([[0, 1], [1, 0]]), np.array([[0, 1], [0, 1]]), np.array([0, 1]))
    assert np.isnan(row(found, "forgotten_share").value)
    assert not found.arrays["forgotten"].any()


def test_a_control_of_dense_models_against_dense_models_forgets_less(digits):
    """Noise makes single predictions differ; modes over five hold."""
    generator = np.random.default_rng(0)
    labels = digits.labels.numpy()
    noisy = np.where(generator.random((10, len(labels))) < 0.1, (labels + 1) % 10, labels)
    assert row(measure_forgotten(noisy[:5], noisy[5:], labels), "forgotten_share").value < 0.05
    assert row(measure_forgotten(noisy[:1], noisy[5:6], labels), "forgotten_share").value > 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((SPARSE[0], DENSE, LABELS), r"sparse_predictions has shape \(8,\), not \(models, n\)"),
        ((SPARSE, DENSE, LABELS[:, None]), r"labels has shape \(8, 1\), not \(n,\)"),
        ((SPARSE, DENSE[:, :5], LABELS), "dense_predictions are of 5 images, and labels of 8"),
        ((SPARSE.astype(float), DENSE, LABELS), "integers from 0 on.*logits.argmax"),
        ((SPARSE, DENSE - 1, LABELS), "dense_predictions are not classes"),
        ((SPARSE[:0], DENSE, LABELS), "sparse_predictions have shape"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(SparsityError, match=message):
        measure_forgotten(*arguments)


def test_overlap_with_the_highest_tenth_by_hand():
    """Of 30 images 6 are forgotten, and 2 of the highest three: p = (C(6,2) C(24,1) + C(6,3)) / C(30,3) = 380 / 4060."""
    vog, flags = np.arange(30.0)[::-1], np.zeros(30, bool)
    flags[[0, 2, 10, 11, 12, 13]] = True
    record = vog_overlap(vog, flags)
    assert (record.metric, record.n) == ("vog_forgotten_overlap", 3)
    assert record.value == pytest.approx(2 / 3)
    assert "of all 30 images 0.2 (6)" in record.detail
    assert f"p = {380 / 4060:.3g}" in record.detail
    table = [[2, 1], [4, 23]]
    assert stats.fisher_exact(table, alternative="greater").pvalue == pytest.approx(380 / 4060)
    interval = stats.binomtest(2, 3).proportion_ci(method="wilson")
    assert (record.low, record.high) == pytest.approx((interval.low, interval.high))


def test_overlap_leaves_out_what_has_no_score_and_says_so():
    vog, flags = np.arange(12.0), np.arange(12) == 9
    vog[10:] = np.nan
    record = vog_overlap(torch.from_numpy(vog), torch.from_numpy(flags))
    assert (record.value, record.n) == (1.0, 1)
    assert "2 without a score left out" in record.detail
    assert np.isnan(vog_overlap(np.full(4, np.nan), np.ones(4, bool)).value)
    with pytest.raises(SparsityError, match="of the same images"):
        vog_overlap(np.arange(3.0), np.ones(4, bool))
