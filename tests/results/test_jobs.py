"""A sweep's jobs are read once, including those whose files are torn."""

import json
import math

import pytest

from lightning_sparse.errors import SparsityError
from lightning_sparse.results.jobs import Job, read_jobs


@pytest.mark.parametrize("text", ["", "null", "[1]", "{}", '{"run": "a"', '{"run": "a", "method": "dense"}'])
def test_a_job_that_cannot_be_read_is_seen(tmp_path, text):
    Job("whole", "dense", "digits", "cnn", 0, 0.0, folder=tmp_path / "whole").save(status="done")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "job.json").write_text(text)
    torn, whole = read_jobs(tmp_path)[0]
    assert (whole.run, whole.status, whole.folder) == ("whole", "done", tmp_path / "whole")
    assert (torn.run, torn.status, torn.folder) == ("torn", "unreadable", tmp_path / "torn")
    assert torn.error.startswith("job.json cannot be read")
    assert math.isnan(torn.seconds)


def test_fields_of_a_later_version_are_left_out(tmp_path):
    job = Job("a", "dense", "digits", "cnn", 0, 0.0, keys=("clean-1",), folder=tmp_path / "a").save()
    path = tmp_path / "a" / "job.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"invented_later": 1}))
    assert read_jobs(tmp_path) == ([job], [])


def test_of_two_the_last_asked_for_counts(tmp_path):
    which = ("rigl", "digits", "cnn", 0, 0.9)
    old, new = (Job(run, *which, asked_at=at, folder=tmp_path / run) for run, at in (("b", 1), ("a", 2)))
    old.save()
    new.save()
    assert read_jobs(tmp_path) == ([new], [old])


def test_a_folder_without_a_sweep_is_refused(tmp_path):
    with pytest.raises(SparsityError, match="does not exist"):
        read_jobs(tmp_path / "nothing")
    with pytest.raises(SparsityError, match="holds no job"):
        read_jobs(tmp_path)
