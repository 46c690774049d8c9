"""Means, intervals and holes against numbers worked out by hand."""

import json
import math
import time
from dataclasses import replace

import pandas as pd
import pytest

from lightning_sparse.errors import SparsityError
from lightning_sparse.report.headline import headline
from lightning_sparse.report.trust_table import trust_table
from lightning_sparse.results import launches
from lightning_sparse.results.records import Record, append, read
from lightning_sparse.tables.averages import over_seeds
from lightning_sparse.tables.collect import by_subject, collect
from lightning_sparse.tables.gaps import holes, warnings
from lightning_sparse.tables.table import summarise, write_csv

T_2 = 4.302652729911275  # 97.5 % quantile of Student's t with two degrees of freedom, from a printed table
T_1 = 12.706204736432095
# Three seeds at m - 0.01, m, m + 0.01 have standard deviation 0.01.
HALF = T_2 * 0.01 / math.sqrt(3)


def line(table: pd.DataFrame, method: str, sparsity: float) -> pd.Series:
    found = table[(table["method"] == method) & (table["sparsity_asked"] == sparsity)]
    assert len(found) == 1
    return found.iloc[0]


def test_means_and_half_widths_are_those_worked_out_by_hand(make_sweep):
    sweep = collect(make_sweep())
    table = summarise(sweep)
    assert list(zip(table["method"], table["sparsity_asked"], strict=True)) == [
        ("dense", 0.0),
        *[("brain", s) for s in (0.5, 0.9, 0.98)],
        *[("gradual", s) for s in (0.5, 0.9, 0.98)],
    ]
    gradual = line(table, "gradual", 0.9)
    assert gradual["clean/accuracy"] == pytest.approx(0.95 - 0.10 * 0.9)
    assert gradual["clean/accuracy ±"] == pytest.approx(HALF)
    assert gradual["robust/worst/eps=0.1"] == pytest.approx(0.95 - 0.10 * 0.9 - 0.2 - 0.18)
    assert gradual["robust/pgd/eps=0.1"] == pytest.approx(gradual["robust/worst/eps=0.1"] + 0.02)
    assert gradual["saliency/gradient/gini"] == pytest.approx(0.59)
    assert gradual["saliency/integrated_gradients/dense_agreement"] == pytest.approx(0.55)
    assert gradual["seeds"] == 3
    assert gradual["density"] == pytest.approx(0.1)
    assert math.isnan(line(table, "dense", 0.0)["saliency/gradient/dense_agreement"])
    assert (table["holes"] == "").all()


def test_one_seed_has_a_mean_and_no_interval(make_sweep):
    sweep = collect(make_sweep(seeds=(1,)))
    brain = line(summarise(sweep), "brain", 0.5)
    assert brain["clean/accuracy"] == pytest.approx(0.95 - 0.05 * 0.5)
    assert math.isnan(brain["clean/accuracy ±"])
    assert brain["seeds"] == 1


def test_failed_running_empty_and_missing_jobs_are_holes(make_sweep, write_job):
    folder = make_sweep(levels=(0.5,))
    write_job(folder, "gradual", 0.9, 0)
    write_job(folder, "gradual", 0.9, 1, status="failed", error="OutOfMemoryError: 2 GiB")
    write_job(folder, "gradual", 0.9, 2, status="running")
    (write_job(folder, "brain", 0.9, 0) / "records.jsonl").unlink()
    write_job(folder, "brain", 0.9, 1)
    # The launch was killed before it came to this job; that brain has no sparsity 0.3 is on purpose.
    write_job(folder, "gradual", 0.3, 0)
    launches.launch(folder, [launches.Asked("brain-0.9-s2", "brain", "digits", "cnn", 2, 0.9, False, ("seed=2",))])
    sweep = collect(folder)
    kept = sweep.frame[sweep.frame["run"] != "brain-0.9-s0"]  # its agreement rows stand in the sweep's own file
    found = holes(replace(sweep, frame=kept))
    told = {(row.method, row.sparsity_asked, row.seed): row.status for row in found.itertuples()}
    assert told == {
        ("gradual", 0.9, 1): "failed",
        ("gradual", 0.9, 2): "running",
        ("brain", 0.9, 0): "empty",
        ("brain", 0.9, 2): "not started",
    }
    table = summarise(replace(sweep, frame=kept))
    gradual = line(table, "gradual", 0.9)
    assert gradual["seeds"] == 1
    assert "seed 1 failed: OutOfMemoryError: 2 GiB" in gradual["holes"]
    assert "seed 2 running: it is still running, or was killed" in gradual["holes"]
    assert line(table, "gradual", 0.5)["holes"] == ""


def test_two_seeds_left_of_three_widen_the_interval(make_sweep):
    folder = make_sweep(methods=("gradual",), levels=(0.5,))
    (folder / "gradual-0.5-s2" / "records.jsonl").unlink()
    sweep = collect(folder)
    gradual = line(summarise(sweep), "gradual", 0.5)
    assert gradual["clean/accuracy"] == pytest.approx(0.9 - 0.005)
    assert gradual["clean/accuracy ±"] == pytest.approx(T_1 * 0.01 / math.sqrt(2) / math.sqrt(2))


def test_a_line_whose_jobs_all_failed_stays_in_the_table(make_sweep, write_job):
    folder = make_sweep(methods=("gradual",), levels=(0.5,), seeds=(0,))
    write_job(folder, "gradual", 0.98, 0, status="failed", error="diverged")
    sweep = collect(folder)
    sparsest = line(summarise(sweep), "gradual", 0.98)
    assert sparsest["seeds"] == 0
    assert math.isnan(sparsest["clean/accuracy"])
    assert sparsest["holes"] == "seed 0 failed: diverged"


def test_measuring_again_replaces_and_does_not_count_twice(make_sweep):
    folder = make_sweep(methods=("gradual",), levels=(0.5,), seeds=(0,))
    job = {"run": "gradual-0.5-s0", "method": "gradual", "data": "digits", "model": "cnn", "seed": 0}
    again = Record("clean_accuracy", 0.123, 200, sparsity_asked=0.5, sparsity=0.5, key="saliency-0", **job)
    append(folder / "gradual-0.5-s0" / "records.jsonl", [again])
    averages = over_seeds(collect(folder).frame)
    found = averages[(averages["method"] == "gradual") & (averages["chart"] == "clean/accuracy")].iloc[0]
    assert found["values"] == [0.123]


def test_undefined_values_are_left_out_and_reported(make_sweep):
    folder = make_sweep(methods=("gradual",), levels=(0.5,))
    job = {"run": "gradual-0.5-s2", "method": "gradual", "data": "digits", "model": "cnn", "seed": 2}
    dead = Record(
        "gini", math.nan, 0, attribution="gradient", sparsity_asked=0.5, sparsity=0.5, key="saliency-0", **job
    )
    append(folder / "gradual-0.5-s2" / "records.jsonl", [dead])
    sweep = collect(folder)
    averages = over_seeds(sweep.frame)
    found = averages[(averages["method"] == "gradual") & (averages["chart"] == "saliency/gradient/gini")].iloc[0]
    assert found["seeds"] == 2
    assert found["mean"] == pytest.approx(0.55 - 0.005)
    assert [said for said in warnings(sweep) if "undefined for gradual-0.5-s2" in said]


def test_what_makes_numbers_incomparable_is_reported(make_sweep, write_job):
    folder = make_sweep(methods=("gradual",), levels=(0.5,), seeds=(0,))
    assert warnings(collect(folder)) == []
    job = {"run": "gradual-0.5-s0", "method": "gradual", "data": "digits", "model": "cnn", "seed": 0}
    owner = {"sparsity_asked": 0.5, "sparsity": 0.5, "key": "saliency-0", **job}
    append(folder / "gradual-0.5-s0" / "records.jsonl", [Record("clean_accuracy", 0.9, 50, **owner)])
    verdict = {"trust": "failed: losses agree, noise"}
    worst = Record("robust_accuracy", 0.1, 100, attack="worst", norm="Linf", eps=0.1, **verdict, **owner)
    append(folder / "gradual-0.5-s0" / "records.jsonl", [worst])
    sweep = collect(folder)
    said = " ".join(warnings(sweep))
    assert "different numbers of images: clean/accuracy" in said
    assert "failed the check of losses agree: gradual-0.5-s0" in said
    assert "failed the check of noise: gradual-0.5-s0" in said


def test_a_check_that_some_networks_never_had_leaves_their_cells_empty(make_sweep):
    folder = make_sweep(methods=("gradual",), levels=(0.5,), seeds=(0,))
    owner = {"run": "gradual-0.5-s0", "method": "gradual", "data": "digits", "model": "cnn", "sparsity_asked": 0.5}
    checks = [Record("trust_noise", 0.2, 100, trust="failed: noise", key="saliency-0", **owner)]
    owner |= {"run": "dense-0-s0", "method": "dense", "sparsity_asked": 0.0}
    checks.append(Record("trust_transfer", 0.01, 100, trust="passed", key="saliency-0", **owner))
    append(folder / "records.jsonl", checks)
    dense, gradual = trust_table(collect(folder).frame)["lines"]
    assert [cell["shown"] for cell in dense["cells"]] == ["", "0.01"]
    assert gradual["cells"] == [{"shown": "0.2", "failed": 1, "of": 1}, {"shown": "", "failed": 0, "of": 0}]


def test_of_two_jobs_in_one_place_the_last_asked_for_counts(make_sweep, write_job):
    folder = make_sweep(methods=("gradual",), levels=(0.5,), seeds=(0, 1))
    write_job(folder, "gradual", 0.5, 0, run="gradual-trained-otherwise")
    sweep = collect(folder)
    assert sweep.superseded == ("gradual-0.5-s0",)
    assert "gradual-0.5-s0" not in set(sweep.frame["run"])
    line = summarise(sweep).query("method == 'gradual'").iloc[0]
    assert line["seeds"] == 2
    assert "Left out, because a newer job" in " ".join(warnings(sweep))
    (folder / "gradual-0.5-s0" / "job.json").touch()  # asked for again
    assert collect(folder).superseded == ("gradual-trained-otherwise",)
    later = folder / "gradual-trained-otherwise" / "job.json"
    later.write_text(json.dumps(json.loads(later.read_text()) | {"asked_at": time.time() + 60}))
    (folder / "gradual-0.5-s0" / "job.json").touch()  # as a copy of the folder does: what the file says counts
    assert collect(folder).superseded == ("gradual-0.5-s0",)


def test_rows_of_other_settings_than_those_last_asked_for_stay_out(make_sweep):
    folder = make_sweep(methods=(), seeds=(0,))
    path = folder / "dense-0-s0" / "job.json"
    stored = json.loads(path.read_text())
    kept = {record.key for record in read(path.parent / "records.jsonl")}
    assert kept == {"saliency-0"}
    weak = Record("robust_accuracy", 0.99, 60, attack="worst", norm="Linf", eps=0.1, key="weak", run=stored["run"])
    append(path.parent / "records.jsonl", [weak])
    assert 0.99 not in set(collect(folder).frame["value"])
    path.write_text(json.dumps(stored | {"keys": [*sorted(kept), "weak"]}))
    assert 0.99 in set(collect(folder).frame["value"])


def test_a_network_that_missed_its_sparsity_is_named(make_sweep, write_job):
    folder = make_sweep(methods=(), seeds=(0,))
    stopped = write_job(folder, "gradual", 0.9, 0, run="stopped")
    rows = stopped / "records.jsonl"
    rows.write_text(rows.read_text().replace('"sparsity": 0.9', '"sparsity": 0.46'))
    assert "stopped was asked for sparsity 0.9 and has 0.46" in " ".join(warnings(collect(folder)))


def test_csv_files_hold_every_row_and_the_table(make_sweep):
    sweep = collect(make_sweep())
    write_csv(sweep)
    records = pd.read_csv(sweep.folder / "records.csv")
    assert len(records) == len(sweep.frame)
    assert records["value"].tolist() == sweep.frame["value"].tolist()
    table = pd.read_csv(sweep.folder / "table.csv")
    assert table["clean/accuracy"][0] == pytest.approx(0.95)
    assert not list(sweep.folder.glob("*.part"))


def test_a_sweep_over_two_data_sets_is_never_averaged_over_them(make_sweep, write_job):
    folder = make_sweep(methods=("gradual",), levels=(0.5,), seeds=(0,))
    write_job(folder, "gradual", 0.5, 0, run="mnist", data="mnist")
    sweep = collect(folder)
    assert list(by_subject(sweep)) == ["digits, cnn", "mnist, cnn"]
    assert list(by_subject(sweep)["mnist, cnn"].jobs["run"]) == ["mnist"]
    table = summarise(sweep)
    assert table["data"].tolist() == ["digits", "digits", "mnist"]


def test_a_torn_job_file_is_a_hole(make_sweep):
    folder = make_sweep(methods=("gradual",), levels=(0.5,), seeds=(0,))
    (folder / "torn").mkdir()
    (folder / "torn" / "job.json").write_text('{"run": "torn", "meth')
    sweep = collect(folder)
    assert list(by_subject(sweep)) == [""]
    assert holes(sweep)["status"].tolist() == ["unreadable"]


def test_folders_that_are_no_sweep_are_refused(tmp_path):
    with pytest.raises(SparsityError, match="does not exist"):
        collect(tmp_path / "nothing")
    with pytest.raises(SparsityError, match="holds no job"):
        collect(tmp_path)


def test_a_mean_over_seeds_that_were_trained_differently_is_reported(tmp_path, write_job):
    folder = tmp_path / "mixed"
    for seed, training in enumerate(["one", "one", "other"]):
        write_job(folder, "gradual", 0.5, seed, training=training)
        write_job(folder, "dense", 0.0, seed, training="dense")
    sweep = collect(folder)
    (said,) = [line for line in warnings(sweep) if "different settings" in line]
    assert said.startswith(
        "gradual at sparsity 0.5 is a mean over seeds that were trained with different settings: grad"
    )


def test_a_job_that_does_not_say_its_sparsity_stands_at_the_one_it_has(tmp_path, write_job):
    folder = tmp_path / "own"
    for seed in (0, 1):
        write_job(folder, "dense", 0.0, seed)
        job = write_job(folder, "own", 0.9, seed, run=f"own-s{seed}", training="half")
        forget_asked(job)
        forget_asked(write_job(folder, "own", 0.5, seed, run=f"other-s{seed}", training="other"))
    for seed, training in ((2, "half"), (3, "never")):
        forget_asked(write_job(folder, "own", 0.9, seed, run=f"failed-s{seed}", training=training, status="failed"))
    sweep = collect(folder)
    table = summarise(sweep)
    assert line(table, "own", 0.9)["seeds"] == 2
    assert line(table, "own", 0.9)["clean/accuracy"] == pytest.approx(clean(0.9))
    assert line(table, "own", 0.9)["holes"].startswith("seed 2 failed")
    assert line(table, "own", 0.5)["seeds"] == 2
    (unknown,) = [one for one in table.itertuples() if math.isnan(one.sparsity_asked)]
    assert unknown.holes.startswith("seed 3 failed")
    assert "nan" not in headline(sweep)[1]
    assert warnings(sweep) == []


def clean(sparsity):
    """What the jobs of a method without a name of its own come to, over seeds 0 and 1."""
    return 0.95 - 0.1 * sparsity - 0.005


def forget_asked(folder):
    """Let a job's files say NaN where they say which sparsity was asked for."""
    for name in ("job.json", "records.jsonl"):
        if (folder / name).exists():
            told = [json.loads(one) for one in (folder / name).read_text().splitlines()]
            lines = [json.dumps(one | {"sparsity_asked": math.nan}) for one in told]
            (folder / name).write_text("\n".join(lines) + "\n")


def test_a_level_that_is_not_known_is_a_level(make_sweep):
    sweep = collect(make_sweep(methods=("gradual",), levels=(0.5,)))
    unknown = sweep.frame["method"] == "gradual"
    frame = sweep.frame.assign(sparsity_asked=sweep.frame["sparsity_asked"].mask(unknown))
    members = [replace(job, sparsity_asked=math.nan) if job.method == "gradual" else job for job in sweep.members]
    table = summarise(replace(sweep, frame=frame, members=tuple(members)))
    (gradual,) = [one for one in table.to_dict("records") if one["method"] == "gradual"]
    assert gradual["seeds"] == 3
    assert gradual["clean/accuracy"] == pytest.approx(0.90)
