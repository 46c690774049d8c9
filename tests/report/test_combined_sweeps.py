"""Several sweeps on one page: nothing is lost on the way, and nothing untrue is said about any of them."""

import json
import re

import numpy as np
import pytest

from lightning_sparse.app.report_command import main
from lightning_sparse.results.arrays import forgotten_file
from lightning_sparse.results.records import Record, append


@pytest.fixture
def two(tmp_path, write_job, monkeypatch):
    """Two sweeps with everything that is shown of images, each of dense, gradual and a small dense network."""
    folders = [tmp_path / name for name in ("quick", "long")]
    for folder in folders:
        for seed in (0, 1):
            jobs = [
                write_job(folder, *which, seed) for which in (("dense", 0.0), ("gradual", 0.9), ("small_dense", 0.9))
            ]
            small = jobs[-1] / "records.jsonl"
            small.write_text(small.read_text().replace('"sparsity": 0.9', '"sparsity": 0.89'))
            for job in jobs[:2]:
                _cross(folder, job, seed)
        _watched(folder / "dense-0-s0")
        _forgotten(folder)
    monkeypatch.chdir(tmp_path)
    return folders


def _cross(folder, job, seed):
    """Rows of what every network makes of images crafted on the two."""
    told = json.loads((job / "job.json").read_text())
    owner = {name: told[name] for name in ("run", "method", "data", "model", "seed", "sparsity_asked")}
    for source in ("dense", "gradual 0.9"):
        row = Record(
            "transfer_accuracy", 0.5, 100, norm="Linf", eps=0.1, condition=source, sparsity=told["sparsity_asked"]
        )
        append(folder / "records.jsonl", [Record(**vars(row) | owner)])


def _watched(job):
    told = json.loads((job / "job.json").read_text())
    (job / "job.json").write_text(json.dumps(told | {"keys": [*told["keys"], "vog-0"]}))
    images = np.random.default_rng(0).random((20, 1, 8, 8)).astype(np.float16)
    np.savez(job / "vog-0.npz", images=images, labels=np.arange(20) % 2, vog_in_class=np.linspace(-1, 1, 20))


def _forgotten(folder):
    images, labels = np.zeros((3, 1, 8, 8)), np.arange(3)
    file = forgotten_file(folder, "digits", "cnn", "gradual")
    file.parent.mkdir()
    kept = {"images": images, "labels": labels, "dense": labels, "sparse": (labels + 1) % 3}
    np.savez(file, **kept, sparsity=0.9, networks=np.array([2, 2]))


def test_what_one_sweep_shows_of_images_is_shown_of_several(two, tmp_path):
    main([*map(str, two)])
    shown = {file.stem for file in (tmp_path / "comparison" / "figures").glob("*.png")}
    for sweep in ("quick", "long"):
        assert {f"transfer_gradual-{sweep}", f"forgotten_gradual-{sweep}", f"vog_dense-{sweep}"} <= shown


def test_a_small_dense_network_is_not_warned_of(two, tmp_path):
    main([*map(str, two)])
    page = (tmp_path / "comparison" / "report.html").read_text()
    assert "small_dense (quick)" in page
    assert "was asked for sparsity 0.9" not in page
    assert "not what was asked" not in page


def test_a_sweep_whose_jobs_were_never_compared_says_what_is_missing(two, tmp_path):
    (two[1] / "records.jsonl").unlink()
    main([*map(str, two)])
    said = (tmp_path / "comparison" / "report.html").read_text()
    assert re.findall(r"The jobs of (\w+) were never compared with each other", said) == ["long"]
    assert f"run lightning-sparse-report {two[1]} first" in said
