"""Steering by a score is held against steering at random, of the same seed and in everything else alike."""

import pytest

from lightning_sparse.results.jobs import read_jobs
from lightning_sparse.results.records import read

NOTHING = ["saliency=none", "stability=none", "transfer=none", "cost=none", "logger=none", "attack=none"]


def test_each_is_compared_with_random_of_its_seed_and_the_page_answers(command, tmp_path):
    asked = ["steering=none,random,loss,vog", "steering.share=0.3", "seed=0,1", "sparsity=dense,gradual_pruning"]
    asked += ["sparsity.final_sparsity=0.8", "trainer.max_epochs=2", "data.label_noise=0.3", "output=out"]
    done = command("-m", *asked, *NOTHING, "steering.begin=0.5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "out" / "runs"
    jobs = {job.run: job for job in read_jobs(folder)[0]}
    found = [row for row in read(folder / "records.jsonl") if row.metric == "difference_random_steering"]
    steered = [job for job in jobs.values() if " by loss" in job.model or " by vog" in job.model]
    assert {row.run for row in found} == {job.run for job in steered}
    assert len(found) == 2 * 2 * 2

    def accuracy(job):
        return next(row.value for row in job.current_rows() if row.metric == "clean_accuracy")

    for row in found:
        job = jobs[row.run]
        (control,) = [
            other
            for other in jobs.values()
            if " by random" in other.model and (other.method, other.seed) == (job.method, job.seed)
        ]
        assert row.value == pytest.approx(accuracy(job) - accuracy(control))
        assert row.low <= row.value <= row.high
        assert "less steered at random of the same seed" in row.detail
    page = (folder / "report.html").read_text()
    assert "points over as many images chosen at random" in page
    assert "clean accuracy less random steering, points" in page
