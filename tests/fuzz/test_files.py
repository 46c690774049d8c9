"""A sweep whose files are broken at random: it is still read, no number is invented, and no other job loses a row."""

import json
import os
import shutil
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

import warm_process
from lightning_sparse.app.comparing.compare_jobs import update_comparisons
from lightning_sparse.results import arrays
from lightning_sparse.results.jobs import read_jobs
from lightning_sparse.tables.collect import collect

SMALL = [
    "model=lenet_300_100",
    "trainer.max_epochs=1",
    "attack.images=40",
    "attack.steps=1",
    "attack.eps=[0.1]",
    "saliency.images=20",
    "saliency.methods=[gradient]",
    "saliency.max_sensitivity=[]",
    "saliency.measures=[gini]",
    "stability=none",
    "transfer.images=16",
    "cost=none",
    "name=s",
    "sparsity.final_sparsity=0.5",
]
FILES = ("records.jsonl", "job.json", "model.ckpt", "clean*.npz", "saliency*.npz", "transfer*.npz", "robust*.npz")
OF_THE_SWEEP = ("launches.jsonl", "records.jsonl")
LINES = [
    "5",
    "{}",
    "null",
    "[]",
    '"a"',
    "{",
    "NaN",
    '{"metric": "clean_accuracy"}',
    '{"measured": 5}',
    '{"measured": ["a"]}',
    '{"event": 1}',
]
VALUES = [None, 5, "x", [], {}, True, "NaN", 1e999]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    command = ["lightning_sparse", "--multirun", "sparsity=dense,gradual_pruning,static", *SMALL]
    done = warm_process.run(*command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return folder / "outputs/s"


def rows_by_run(folder):
    """Everything that the report says of each job, as text; NaN is NaN."""
    read = read_jobs(folder)
    update_comparisons(folder, read[0])
    found = {}
    for job in read[0]:
        for kind in ("clean", "saliency", "transfer"):
            arrays.load(job, kind)
        found[job.folder.name] = {json.dumps(asdict(row), sort_keys=True) for row in job.current_rows()}
    collect(folder, read)
    return found


def cut(data, content):
    return content[: data.draw(st.integers(0, len(content)), label="bytes left")]


def foreign(data, content):
    return data.draw(
        st.sampled_from([b"", b"<html>404</html>", b"\x00" * 64, b"\xff\xfe\xfa", b"PK\x03\x04", b"\x80\x02}q\x00."])
    )


def bad_byte(data, content):
    place = data.draw(st.integers(0, max(0, len(content) - 1)), label="place")
    return content[:place] + b"\xff" + content[place + 1 :]


def odd_line(data, content):
    lines = content.splitlines(keepends=True)
    place = data.draw(st.integers(0, len(lines)), label="line")
    return b"".join([*lines[:place], data.draw(st.sampled_from(LINES)).encode() + b"\n", *lines[place:]])


def odd_field(data, content):
    """One field of one JSON object is left out, or has a value of another kind."""
    lines = content.decode().splitlines()
    whole = not content.startswith(b'{"')  # job.json is one object on many lines
    place = data.draw(st.integers(0, len(lines) - 1), label="line")
    thing = json.loads(content if whole else lines[place])
    name = data.draw(st.sampled_from(sorted(thing)), label="field")
    if data.draw(st.booleans(), label="leave out"):
        del thing[name]
    else:
        thing[name] = data.draw(st.sampled_from(VALUES))
    if whole:
        return json.dumps(thing).encode()
    return "\n".join([*lines[:place], json.dumps(thing), *lines[place + 1 :], ""]).encode()


def test_a_file_of_a_sweep_is_broken(sweep, tmp_path_factory):
    whole = rows_by_run(sweep)
    before = {path: path.read_bytes() for path in sweep.rglob("*") if path.is_file() and "figures" not in path.parts}
    assert len(whole) == 3
    assert all(whole.values())

    @given(st.data())
    def break_one(data):
        folder = tmp_path_factory.mktemp("broken") / "s"
        shutil.copytree(sweep, folder, ignore=shutil.ignore_patterns("figures", "report.html", "curves"))
        if data.draw(st.booleans(), label="a job's file"):
            job = data.draw(st.sampled_from(sorted(whole)), label="job")
            path = next((folder / job).glob(data.draw(st.sampled_from(FILES), label="file")))
        else:
            job, path = "", folder / data.draw(st.sampled_from(OF_THE_SWEEP), label="file")
        damages = [cut, foreign, bad_byte] + [odd_line, odd_field] * (path.suffix in (".json", ".jsonl"))
        damage = data.draw(st.sampled_from(damages), label="damage")
        path.write_bytes(damage(data, path.read_bytes()))
        found = rows_by_run(folder)
        for name, rows in whole.items():
            if name == job:
                assert found.get(name, set()) <= rows or damage is odd_field, "a number was invented"
            else:
                assert found[name] == rows, "another job lost rows"
        shutil.rmtree(folder.parent)

    break_one()
    assert before == {path: path.read_bytes() for path in before}, "the sweep itself was changed"
