"""A folder where nothing can be written is refused in one line, before a job begins."""

import subprocess
import sys

import pytest

from lightning_sparse.app.writable import check_writable
from lightning_sparse.errors import SparsityError

AS_NOBODY = """
import os, sys, random, tempfile
from pathlib import Path
from lightning_sparse.app.writable import check_writable
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    check_writable(*map(Path, sys.argv[1:]))
except ValueError as error:
    print(error)
"""


def said_to_nobody(tmp_path, *folders):
    for above in (tmp_path, *tmp_path.parents):
        if above.name.startswith(("pytest", "popen", "test")):
            above.chmod(0o755)
    command = [sys.executable, "-c", AS_NOBODY, *map(str, folders)]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout.strip()


def test_what_can_be_written_to_is_made_and_left_empty(tmp_path):
    check_writable(tmp_path / "a" / "b", tmp_path / "a" / "b" / "job")
    assert not list((tmp_path / "a" / "b").iterdir())


@pytest.mark.parametrize("below", ["", "runs", "runs/more"])
def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path, below):
    (tmp_path / "outputs").write_text("")
    with pytest.raises(SparsityError, match=r"outputs.* cannot be written to .*: write output=/a/folder/of/yours"):
        check_writable(tmp_path / "outputs" / below)


def test_a_name_that_is_too_long_is_refused(tmp_path):
    with pytest.raises(SparsityError, match=r"cannot be written to .File name too long"):
        check_writable(tmp_path / ("x" * 300))


@pytest.mark.skipif(sys.platform == "win32", reason="needs file modes")
def test_a_folder_of_somebody_else_is_refused(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    folder.chmod(0o555)
    assert said_to_nobody(tmp_path, folder) == (
        f"{folder} cannot be written to (Permission denied): write output=/a/folder/of/yours"
    )
    assert f"{folder}/new cannot be written to" in said_to_nobody(tmp_path, folder / "new")


@pytest.mark.skipif(sys.platform == "win32", reason="needs file modes")
def test_a_job_of_somebody_else_in_a_folder_for_all_is_refused(tmp_path):
    job = tmp_path / "runs" / "dense-seed0"
    (job / ".hydra").mkdir(parents=True)
    (tmp_path / "runs").chmod(0o777)
    assert said_to_nobody(tmp_path, tmp_path / "runs", tmp_path / "runs" / "other") == ""
    job.chmod(0o555)
    assert f"{job} cannot be written to" in said_to_nobody(tmp_path, tmp_path / "runs", job)
    job.chmod(0o777)
    (job / "job.json").write_text("{}")
    (job / "job.json").chmod(0o444)
    assert f"{job / 'job.json'} cannot be written to" in said_to_nobody(tmp_path, tmp_path / "runs", job)
