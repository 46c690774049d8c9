import math

from lightning_sparse.results.records import Record, append, closed, read

ROWS = [
    Record("clean_accuracy", 0.9, 100, 0.8, 0.95, run="a", seed=3, sparsity=0.5),
    Record("gini", math.nan, 0, attribution="gradient", detail='says "nothing", or\na line'),
]


def test_round_trip_keeps_every_field(tmp_path):
    append(tmp_path / "r.jsonl", ROWS[:1])
    append(tmp_path / "r.jsonl", ROWS[1:])
    first, second = read(tmp_path / "r.jsonl")
    assert first == ROWS[0]
    assert math.isnan(second.value)
    assert second.detail == ROWS[1].detail


def test_a_line_torn_by_a_kill_costs_that_line_only(tmp_path):
    path = tmp_path / "r.jsonl"
    append(path, ROWS[:1])
    whole = path.read_text()
    path.write_text(whole + whole[: len(whole) // 2])
    assert read(path) == ROWS[:1]
    append(path, ROWS[:1])
    assert read(path) == ROWS[:1] * 2


def test_rows_of_a_later_version_are_read_by_what_is_known(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"metric": "gini", "value": 0.5, "n": 3, "invented_later": 1}\n')
    assert read(path) == [Record("gini", 0.5, 3)]


def test_a_missing_file_has_no_rows(tmp_path):
    assert read(tmp_path / "none.jsonl") == []


def test_a_measurement_counts_only_with_all_of_its_rows(tmp_path):
    path = tmp_path / "r.jsonl"
    append(path, ROWS, closes="robust-1")
    append(path, [], closes="vog-2")
    assert closed(path) == {"robust-1", "vog-2"}
    assert len(read(path)) == 2
    whole = path.read_bytes()
    for cut in range(len(whole)):  # wherever a kill may cut it
        path.write_bytes(whole[:cut])
        assert closed(path) <= {"robust-1", "vog-2"}
        assert "robust-1" not in closed(path) or len(read(path)) == 2
