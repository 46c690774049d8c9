"""What cannot be read of a sweep's files is skipped, named, and put aside so that it is made again; nothing else changes."""

import io
import json
from dataclasses import asdict

import numpy as np
import pytest

from lightning_sparse.results import arrays, launches, records
from lightning_sparse.results.jobs import Job, read_job, read_jobs
from lightning_sparse.results.records import Record
from lightning_sparse.results.unreadable import make_room, of_job, of_sweep

LABELS = np.array([0, 1, 1])
KEYS = ("clean-1", "robust-1-0.1", "cost-1")


@pytest.fixture
def job(tmp_path):
    job = Job("a", "dense", "digits", "cnn", 0, 0.0, "done", keys=KEYS, objective=0.5, folder=tmp_path / "a").save()
    np.savez(job.folder / "clean-1.npz", labels=LABELS, prediction=LABELS)
    np.savez(job.folder / "robust-1-0.1.npz", labels=LABELS, survives=np.ones((3, 1), bool), eps=np.array([0.1]))
    for key in KEYS:
        job.record([Record(f"{key}_{part}", 0.5, 3) for part in "xy"], key, 0.0)
    assert of_job(job) == []
    return job


def text_of(path):
    return path.read_bytes().splitlines(keepends=True)


ROW = asdict(Record("gini", 0.5, 3, run="a", key="clean-1"))
BAD_ROWS = [
    b"5\n",
    b"{}\n",
    b"null\n",
    b"[]\n",
    b"hello\n",
    b'{"metric": "\xff", "value": 1, "n": 1}\n',
    b"[" * 100_000 + b"\n",
    b'{"measured": 5}\n',
    b'{"measured": ""}\n',
    *(
        json.dumps(ROW | wrong).encode() + b"\n"
        for wrong in (
            {"value": "x"},
            {"value": None},
            {"value": 10**400},
            {"n": 2.5},
            {"n": -1},
            {"n": 10**30},
            {"n": True},
            {"eps": "0.1"},
            {"eps": float("nan")},
            {"metric": ""},
            {"metric": 5},
            {"seed": "a"},
            {"key": None},
            {"run": "another job"},
        )
    ),
    *(
        json.dumps({name: ROW[name] for name in ROW if name != lacks}).encode() + b"\n"
        for lacks in ("metric", "value", "n")
    ),
]


@pytest.mark.parametrize("line", BAD_ROWS, ids=range(len(BAD_ROWS)))
def test_a_bad_line_costs_the_measurement_that_it_stands_in(job, line):
    before, rows = text_of(job.rows), job.current_rows()
    job.rows.write_bytes(b"".join([before[0], line, *before[2:]]))  # in place of the second row of clean-1
    assert job.current_rows() == [rows[0], *rows[2:]]
    assert job.measured() == {"robust-1-0.1", "cost-1"}
    assert [(found.path, found.lines) for found in of_job(job)] == [(job.rows, (2,))]
    (said,) = of_sweep(job.folder.parent, [job])
    assert said.startswith("line 2 of records.jsonl in a cannot be read (")
    assert said.endswith("and is left out: launch again to measure it again.")


def test_rows_of_a_later_version_and_any_number_are_rows(job):
    before = text_of(job.rows)
    odd = [
        ROW | {"invented_later": [1]},
        ROW | {"value": float("nan")},
        ROW | {"value": 3},
        ROW | {"value": float("inf")},
    ]
    job.rows.write_bytes(b"".join(before) + b"".join(json.dumps(row).encode() + b"\n" for row in odd) + b"\n")
    assert len(records.read(job.rows)) == len(KEYS) * 2 + 4
    assert of_job(job) == []


def test_rows_of_an_earlier_version_count_unless_a_line_among_them_cannot_be_read(job):
    old = [line.replace(b', "rows": 2', b"") for line in text_of(job.rows)]
    job.rows.write_bytes(b"".join(old))
    assert job.measured() == set(KEYS)
    job.rows.write_bytes(b"".join([*old[:4], b"5\n", *old[4:]]))
    assert job.measured() == {"clean-1", "cost-1"}


def test_a_line_that_a_kill_has_torn_is_named_only_if_nothing_follows_it(job):
    whole = job.rows.read_bytes()
    job.rows.write_bytes(whole[:-9])
    assert job.measured() == set(KEYS[:2])
    assert of_job(job)[0].lines == (9,)
    job.record([Record("cost-1_x", 0.5, 3)], "cost-1", 0.0)
    assert job.measured() == set(KEYS)
    assert of_job(job) == []
    make_room(job)
    assert job.rows.read_bytes().startswith(whole[:-9])


def npy():
    file = io.BytesIO()
    np.save(file, LABELS)
    return file.getvalue()


ARRAYS = {
    "empty": lambda path, has: path.write_bytes(b""),
    "text": lambda path, has: path.write_text("<html>"),
    "half": lambda path, has: path.write_bytes(path.read_bytes()[:200]),
    "a byte short": lambda path, has: path.write_bytes(path.read_bytes()[:-1]),
    "a bad byte": lambda path, has: path.write_bytes(path.read_bytes()[:150] + b"\xff" + path.read_bytes()[151:]),
    "one array": lambda path, has: path.write_bytes(npy()),
    "others": lambda path, has: np.savez(path, x=LABELS),
    "objects": lambda path, has: np.savez(path, **has | {"labels": np.array([None, 0, 1])}),
    "a shorter one": lambda path, has: np.savez(path, **has | {"labels": LABELS[:2]}),
    "of floats": lambda path, has: np.savez(path, **has | {"labels": LABELS.astype(float)}),
    "of other dimensions": lambda path, has: np.savez(path, **has | {name: has[name][None] for name in has}),
    "a folder": lambda path, has: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("spoil", ARRAYS.values(), ids=ARRAYS)
@pytest.mark.parametrize("key", KEYS[:2])
def test_arrays_that_cannot_be_read_are_measured_again(job, key, spoil, capsys):
    path = job.folder / f"{key}.npz"
    spoil(path, arrays.read(path))
    assert arrays.load(job, "clean") is None or key != "clean-1"
    assert set(arrays.survivors(job)) == (set() if key == KEYS[1] else {(KEYS[1], 0.1)})
    assert [found.path for found in of_job(job)] == [path]
    make_room(job)
    assert not path.exists()
    assert path.with_name(f"{path.name}.unreadable").exists()
    assert f"{path.name} in a cannot be read" in capsys.readouterr().err
    assert job.measured() == set(KEYS) - {key}
    assert of_job(job) == []
    assert {row.key for row in job.current_rows()} == set(KEYS) - {key}
    job.record([Record("again", 0.5, 3)], key, 0.0)
    assert job.measured() == set(KEYS) - {key}  # rows without their arrays
    np.savez(path, labels=LABELS)
    assert job.measured() == set(KEYS)


def test_what_is_put_aside_is_kept_and_of_the_rows_only_whole_measurements_stay(job, capsys):
    whole = text_of(job.rows)
    job.rows.write_bytes(b"".join([*whole[:4], b"5\n", *whole[5:]]))
    spoiled = job.rows.read_bytes()
    for path in (job.checkpoint, job.half_done):
        path.write_text("<html>")
    (job.folder / "job.json").write_text('{"run": 5}')
    make_room(job)
    assert job.rows.read_bytes() == b"".join([*whole[:3], *whole[6:]])
    assert (job.folder / "records.jsonl.unreadable").read_bytes() == spoiled
    assert {path.name for path in job.folder.glob("*.unreadable")} == {
        f"{name}.unreadable" for name in ("records.jsonl", "model.ckpt", "training.ckpt", "job.json")
    }
    assert len(capsys.readouterr().err.splitlines()) == 4
    assert job.lost("model.ckpt")
    job.checkpoint.write_text("again")
    make_room(job)
    assert (job.folder / "model.ckpt.unreadable-1").read_text() == "again"


@pytest.mark.parametrize(
    "wrong",
    [{"seed": "a"}, {"keys": 5}, {"keys": [5]}, {"status": 5}, {"sparsity_asked": None}, {"objective": "x"},
     {"asked_at": "x"}, {"run": None}, {"seconds": []}, {"seed": 10**30}, {"asked_at": float("nan")}],
)  # fmt: skip
def test_a_field_of_the_wrong_kind_makes_a_job_unreadable(job, wrong):
    path = job.folder / "job.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | wrong))
    assert read_job(path) is None
    assert read_jobs(path.parent.parent)[0][0].status == "unreadable"


def test_a_job_of_another_folder_is_not_this_one(job):
    path = job.folder / "job.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"run": "b"}))
    assert job.stored() is None


EVENTS = [
    b"5", b"null", b"{}", b"[]", b"\xff", b'{"event": 5}', b'{"event": "done"}', b'{"event": "done", "number": "x"}',
    b'{"event": "launched"}', b'{"event": "launched", "asked": 5}', b'{"event": "launched", "asked": [5]}',
    b'{"event": "launched", "asked": [[5]]}', b'{"event": "done", "number": 0, "how": []}', b"[" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("line", EVENTS, ids=range(len(EVENTS)))
def test_a_bad_line_of_the_log_is_skipped_and_named(tmp_path, line):
    launches.launch(tmp_path, [launches.Asked(f"a{seed}", "a", "b", "c", seed, 0.5, False, ()) for seed in range(2)])
    launches.tell(tmp_path, "done", 0, "a", how="trained")
    before = launches.counts(tmp_path), launches.not_started(tmp_path)
    with launches.log_file(tmp_path).open("ab") as file:
        file.write(line + b"\n")
    assert (launches.counts(tmp_path), launches.not_started(tmp_path)) == before
    (said,) = of_sweep(tmp_path, [])
    assert said.startswith("line 3 of launches.jsonl in ")


def test_a_file_of_rows_whose_end_is_lost_is_named(job):
    job.rows.write_bytes(b"".join(text_of(job.rows)[:3]))
    assert job.measured() == {"clean-1"}
    (said,) = of_sweep(job.folder.parent, [job])
    assert said == "records.jsonl in a lacks robust-1-0.1, cost-1: launch again."
