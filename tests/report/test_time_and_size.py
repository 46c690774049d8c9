"""Time and bytes against accuracy: the best form of each network, worked out by hand."""

import pandas as pd
import pytest

from lightning_sparse.report import write
from lightning_sparse.report.figure_contents import FIGURES
from lightning_sparse.results.records import Record, append
from lightning_sparse.tables.collect import collect
from report.test_report import check


@pytest.fixture
def timed(make_sweep):
    """As it is a network takes what dense takes; shrunk it takes its density, but at batch 1 nothing is saved."""
    folder = make_sweep(methods=("gradual", "small_dense"), levels=(0.5, 0.9), seeds=(0, 1))
    for job in collect(folder).members:
        owner = {name: getattr(job, name) for name in ("run", "method", "data", "model", "seed", "sparsity_asked")}
        owner |= {"sparsity": job.sparsity_asked, "key": "saliency-0"}
        jitter = 0.01 * (2 * job.seed - 1)
        rows = []
        for size in (1, 128):
            shrunk = 1.5 if size == 1 else 1 - job.sparsity_asked
            for name, value in (("model", 1.0), ("shrunk", shrunk), ("noise", 1.02 + jitter)):
                rows.append(Record(f"cost_latency_{name}", value + jitter, size, condition=f"batch={size}", **owner))
        rows.append(Record("cost_size_model", 4e6, 0, **owner))
        rows.append(Record("cost_size_packed", 4e6 * (1.01 - job.sparsity_asked), 0, **owner))
        append(folder / job.run / "records.jsonl", rows)
    return folder


def points(contents, row, column):
    lines = contents.rows[row][column].lines
    return {(line["method"], line["sparsity_asked"]): line for line in lines.to_dict("records")}


def test_time_is_that_of_the_fastest_form_at_each_batch_size(timed):
    contents = FIGURES["pareto_time"](collect(timed))
    assert list(contents.rows) == ["batch 1", "batch 128"]
    assert [panel.title for panel in contents.rows["batch 1"]] == ["clean accuracy", "robust accuracy, eps = 0.1"]
    at_1, at_128 = points(contents, "batch 1", 0), points(contents, "batch 128", 0)
    assert set(at_1) == set(at_128) == {("dense", 0.0), ("gradual", 0.5), ("gradual", 0.9)}  # not small_dense
    assert {line["form"] for line in at_1.values()} == {"model"}
    assert at_1["gradual", 0.9]["time"] == pytest.approx(1.0)
    assert at_128["gradual", 0.9]["time"] == pytest.approx(0.1)
    assert at_128["gradual", 0.9]["form"] == "shrunk"
    # Sparser is faster and worse here, so all are on the front; at batch 1 all take as long and dense is the best.
    assert all(line["front"] for line in at_128.values())
    assert [place for place, line in at_1.items() if line["front"]] == [("dense", 0.0)]
    assert "Noise: a second dense copy took 1.00 to 1.04 of the first" in contents.caption


def test_bytes_are_those_of_the_smallest_form(timed):
    contents = FIGURES["pareto_size"](collect(timed))
    found = points(contents, "", 1)
    assert set(found) == {("dense", 0.0), *((method, s) for method in ("gradual", "small_dense") for s in (0.5, 0.9))}
    assert found["gradual", 0.9]["kilobytes"] == pytest.approx(4e3 * 0.11)
    assert (found["dense", 0.0]["kilobytes"], found["dense", 0.0]["form"]) == (4e3, "model")
    assert found["gradual", 0.9]["metric"] == "robust_accuracy"
    assert "smallest form (model, packed). Model: as it was trained, 4000 kB at most." in contents.caption


def test_the_page_has_both_and_a_column_for_each_batch_size(timed):
    page = check(write(collect(timed)))
    assert (timed / "figures" / "pareto_time.png").exists()
    assert (timed / "figures" / "pareto_size.svg").exists()
    for words in ("time / dense, shrunk, batch=128", "bytes exported, packed", "Size of an exported network"):
        assert words in page.words
    assert "of dense's time, as shrunk" in page.source.replace("\\u0027", "'")
    table = pd.read_csv(timed / "table.csv")
    row = table[(table["method"] == "gradual") & (table["sparsity_asked"] == 0.9)].iloc[0]
    assert row["cost/latency_shrunk/batch=128"] == pytest.approx(0.1)


def test_without_times_or_exports_there_is_neither(make_sweep):
    sweep = collect(make_sweep())
    assert FIGURES["pareto_time"](sweep) is None
    assert FIGURES["pareto_size"](sweep) is None


def test_without_attacks_there_is_clean_accuracy_alone(timed):
    for path in timed.glob("*/records.jsonl"):
        path.write_text("".join(line for line in path.read_text().splitlines(True) if "robust_accuracy" not in line))
    contents = FIGURES["pareto_time"](collect(timed))
    assert [len(panels) for panels in contents.rows.values()] == [1, 1]
    write(collect(timed))
    assert (timed / "figures" / "pareto_time.png").exists()
