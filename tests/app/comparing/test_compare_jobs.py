"""Rows made from several jobs together, against numbers worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from lightning_sparse.app.comparing.compare_jobs import compare_jobs, update_comparisons
from lightning_sparse.app.comparing.forgotten_images import forgotten_images, populations
from lightning_sparse.app.comparing.paired_with_dense import differences
from lightning_sparse.app.comparing.same_images import same_images
from lightning_sparse.results import records
from lightning_sparse.results.jobs import Job, read_jobs
from lightning_sparse.results.records import Record

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1])
EPS = (0.1, 0.2)


def made(tmp_path, method, sparsity, seed, wrong=(), fallen=((), ()), maps=None, key="a"):
    """A job that is done: it gets the images in ``wrong`` wrong, and attacks at each eps break those in ``fallen``."""
    run = f"{method}-{sparsity}-{seed}"
    folder = tmp_path / run
    folder.mkdir()
    keys = (f"clean-{key}", *(f"robust-{key}-{eps}" for eps in EPS), f"saliency-{key}")
    job = Job(run, method, "digits", "cnn", seed, sparsity, "done", keys=keys, folder=folder)
    prediction = LABELS.copy()
    prediction[list(wrong)] = 1 - prediction[list(wrong)]
    np.savez(folder / f"clean-{key}.npz", labels=LABELS, prediction=prediction)
    for eps, lost in zip(EPS, fallen, strict=True):
        survives = ~np.isin(np.arange(8), [*wrong, *lost])[:, None]
        np.savez(folder / f"robust-{key}-{eps}.npz", labels=LABELS, survives=survives, eps=np.array([eps]))
    if maps is not None:
        arrays = {"gradient": maps, "gradient/gini": maps.mean(axis=(1, 2))}
        images = np.zeros((8, 1, 3, 3), np.float16)
        np.savez(folder / f"saliency-{key}.npz", images=images, labels=LABELS, prediction=prediction, **arrays)
    job.record([Record("robust_accuracy", 0.5, 8, norm="Linf")], f"robust-{key}-0.1", sparsity)
    return job


def test_differences_are_paired_by_image_and_seed(tmp_path):
    jobs = [
        made(tmp_path, "dense", 0.0, 0, wrong=[0], fallen=([1], [1, 2])),
        made(tmp_path, "gradual", 0.9, 0, wrong=[0, 4], fallen=([1, 2, 3], [1, 2, 3, 5])),
        made(tmp_path, "gradual", 0.9, 1, wrong=[7]),  # without a dense network of its seed
    ]
    rows = differences(jobs)
    assert [(row.run, row.metric, row.eps, row.n) for row in rows] == [
        ("gradual-0.9-0", "difference_clean_accuracy", None, 8),
        ("gradual-0.9-0", "difference_robust_accuracy", 0.1, 8),
        ("gradual-0.9-0", "difference_robust_accuracy", 0.2, 8),
    ]
    # Image 4 on clean; 2, 3 and 4 at 0.1; 3, 4 and 5 at 0.2.
    assert [row.value for row in rows] == [-1 / 8, -3 / 8, -3 / 8]
    assert all(row.low < row.value < row.high for row in rows)
    assert {row.sparsity for row in rows} == {0.9}
    assert "p = 0.25" in rows[1].detail  # three of three coins: 2 / 2**3


def test_other_settings_are_not_compared(tmp_path):
    jobs = [made(tmp_path, "dense", 0.0, 0), made(tmp_path, "gradual", 0.9, 0, wrong=[1], key="b")]
    assert differences(jobs) == []


def test_saliency_over_the_images_that_all_networks_of_a_seed_have_right(tmp_path):
    values = np.arange(8.0)[:, None, None] * np.ones((8, 3, 3))
    jobs = [
        made(tmp_path, "dense", 0.0, 0, wrong=[7], maps=values),
        made(tmp_path, "gradual", 0.9, 0, wrong=[0, 1], maps=2 * values),
    ]
    found = {row.run: row for row in same_images(jobs)}
    assert {row.n for row in found.values()} == {5}
    assert {row.condition for row in found.values()} == {"same images"}
    assert found["dense-0.0-0"].value == 4.0  # the mean of 2, 3, 4, 5 and 6
    assert found["gradual-0.9-0"].value == 8.0


def test_a_network_is_left_out_that_is_nearer_to_chance_than_to_the_best(tmp_path):
    """Eight images of eight classes: chance is 1 of 8 and dense gets 4 right, so 3 are enough and 2 are not."""
    values, classes = np.arange(8.0)[:, None, None] * np.ones((8, 3, 3)), np.arange(8)
    right = {"dense": 4, "good": 3, "bad": 2}
    jobs = [made(tmp_path, method, 0.0 if method == "dense" else 0.9, 0, maps=values) for method in right]
    for job, n in zip(jobs, right.values(), strict=True):
        path = job.folder / "saliency-a.npz"
        with np.load(path) as file:
            says = {"labels": classes, "prediction": np.where(classes < n, classes, (classes + 1) % 8)}
            np.savez(path, **dict(file) | says)
    found = {row.method: row for row in same_images(jobs)}
    assert set(found) == {"dense", "good"}
    assert {row.n for row in found.values()} == {3}
    assert "closer to chance than to the best of their group are left out" in found["good"].detail
    assert same_images(jobs[2:])  # where no network is better it is compared too
    with np.load(path) as file:
        guesses = dict(file) | {"prediction": np.zeros(8, int)}
    np.savez(path, **guesses)
    assert same_images(jobs[2:]) == []  # the best of them has learned nothing


def test_agreement_with_dense_and_between_dense_seeds(tmp_path):
    draw = np.random.default_rng(0)
    maps = [np.abs(draw.normal(size=(8, 3, 3))) for _ in range(4)]
    jobs = [
        made(tmp_path, "dense", 0.0, 0, maps=maps[0]),
        made(tmp_path, "dense", 0.0, 1, maps=maps[1]),
        made(tmp_path, "gradual", 0.9, 0, maps=maps[2]),
        made(tmp_path, "gradual", 0.9, 1, maps=maps[3]),
    ]
    found = {row.run: row for row in compare_jobs(jobs) if row.metric == "dense_agreement"}
    for run, one, other in (("dense-0.0-0", 0, 1), ("gradual-0.9-0", 2, 0), ("gradual-0.9-1", 3, 1)):
        by_hand = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(maps[one], maps[other], strict=True)]
        assert found[run].value == pytest.approx(np.mean(by_hand))
    assert set(found) == {"dense-0.0-0", "gradual-0.9-0", "gradual-0.9-1"}
    assert "seeds 0 and 1" in found["dense-0.0-0"].detail


def test_what_a_population_forgets(tmp_path):
    dense = [made(tmp_path, "dense", 0.0, seed) for seed in range(3)]
    sparse = [made(tmp_path, "gradual", 0.9, seed, wrong=wrong) for seed, wrong in enumerate(([3], [3, 5], [5, 6]))]
    ((level, parents, (sparse_says, dense_says, labels)),) = populations([*dense, *sparse])
    assert (level, parents) == (sparse, dense)
    assert sparse_says.shape == dense_says.shape == (3, 8)
    assert np.array_equal(labels, LABELS)
    share = next(row for row in forgotten_images([*dense, *sparse]) if row.metric == "forgotten_share")
    assert share.value == 2 / 8  # 3 and 5 in two of three networks, 6 in one
    assert (share.method, share.sparsity_asked) == ("gradual", 0.9)


def test_a_sweep_without_dense_networks_is_compared_with_nothing(tmp_path):
    assert compare_jobs([made(tmp_path, "gradual", 0.9, 0)]) == []


def test_agreement_is_only_of_equal_images_and_of_jobs_that_are_done(tmp_path):
    maps = np.random.default_rng(0).random((8, 3, 3))
    made(tmp_path, "dense", 0.0, 0, maps=maps).save()
    made(tmp_path, "gradual", 0.9, 0, maps=3 * maps + 1).save()  # the same order of pixels
    made(tmp_path, "brain", 0.9, 0, maps=1 - maps).save()  # the reverse order
    made(tmp_path, "gradual", 0.9, 2, maps=maps).save()  # no dense network of this seed
    made(tmp_path, "late", 0.9, 0, maps=maps).save(status="failed")
    other = made(tmp_path, "rigl", 0.9, 0, maps=maps).save()
    with np.load(other.folder / "saliency-a.npz") as file:
        arrays = dict(file)
    np.savez(other.folder / "saliency-a.npz", **arrays | {"images": arrays["images"] + 1})
    found = {row.run: row.value for row in compare_jobs(read_jobs(tmp_path)[0]) if row.metric == "dense_agreement"}
    assert found == {"gradual-0.9-0": pytest.approx(1.0), "brain-0.9-0": pytest.approx(-1.0)}


def test_a_difference_from_a_number_that_failed_a_check_is_not_trusted_either(tmp_path):
    dense, sparse = made(tmp_path, "dense", 0.0, 0), made(tmp_path, "gradual", 0.9, 0)
    told = {"attack": "worst", "norm": "L2", "trust": "failed: noise"}
    dense.record([Record("robust_accuracy", 0.5, 8, eps=0.2, **told)], "robust-a-0.2", 0.0)
    found = {row.eps: row for row in differences([dense, sparse]) if row.eps}
    assert (found[0.1].trust, found[0.2].trust, found[0.2].norm) == ("", "failed: noise", "L2")


def test_a_comparison_that_fails_costs_no_other(tmp_path, capsys):
    jobs = [made(tmp_path, "dense", 0.0, 0), made(tmp_path, "gradual", 0.9, 0, wrong=[1])]
    jobs.append(replace(jobs[1], run="other", folder=tmp_path / "other", keys=("transfer-a",)))
    jobs[2].folder.mkdir()
    jobs[2].checkpoint.touch()
    images = np.zeros((8, 1, 3, 3))
    np.savez(jobs[2].folder / "transfer-a.npz", images=images, adversarial=images, labels=LABELS, eps=0.1, norm="L7")
    failed = []
    assert {row.metric for row in compare_jobs(jobs, failed)} >= {"difference_clean_accuracy", "forgotten_share"}
    assert failed == ["other"]
    assert "other: not attacked by transfer, FileNotFoundError" in capsys.readouterr().err


def test_what_cannot_be_read_is_left_out_and_costs_no_other(tmp_path, capsys):
    jobs = [made(tmp_path, "dense", 0.0, 0), made(tmp_path, "gradual", 0.9, 0, wrong=[1])]
    whole = {row.metric for row in compare_jobs(jobs)}
    np.savez(jobs[0].folder / "saliency-a.npz", images=np.zeros(3))  # lacks everything that belongs there
    other = made(tmp_path, "gradual", 0.5, 0, wrong=[1])
    np.savez(other.folder / "clean-a.npz", labels=LABELS[:4], prediction=LABELS[:4])  # of other images
    (other.folder / "robust-a-0.2.npz").write_bytes(b"PK")
    assert {row.metric for row in compare_jobs([*jobs, other])} == whole
    assert capsys.readouterr().err == ""


def test_what_no_job_has_changed_is_not_computed_again(tmp_path, capsys):
    maps = np.random.default_rng(0).random((8, 3, 3))
    jobs = [made(tmp_path, "dense", 0.0, 0, [1], maps=maps), made(tmp_path, "gradual", 0.9, 0, [1], maps=maps)]
    path = tmp_path / "records.jsonl"

    def rows():
        update_comparisons(tmp_path, jobs)
        return {(row.run, row.metric): repr(row.value) for row in records.read(path)}, path.stat().st_ino

    first = rows()
    assert first == rows()
    fallen = np.zeros((8, 1), bool)
    np.savez(jobs[1].folder / "robust-a-0.2.npz", labels=LABELS, survives=fallen, eps=np.array([0.2]))
    second, changed = rows(), ("gradual-0.9-0", "difference_robust_accuracy")
    assert (first[0][changed], second[0][changed]) == ("0.0", "-0.875")
    jobs.append(made(tmp_path, "gradual", 0.5, 0, [1]))
    third = rows()
    assert set(third[0]) > set(second[0])
    jobs[0] = replace(jobs[0], status="failed")
    assert {metric for _, metric in rows()[0]} == {"gini"}  # of the images that all have right
    jobs[0] = replace(jobs[0], status="done")
    assert rows()[0] == third[0]
    assert capsys.readouterr().err == ""
    jobs += [made(tmp_path, "rigl", 0.5, 0, wrong=[3])]  # forgets an image that is in no file
    rows()
    assert (jobs[3].run, "forgotten_share") in rows()[0]
    assert capsys.readouterr().err.count("gallery: not made, FileNotFoundError") == 2  # what failed is tried again
