"""Jobs of texts, and of a language model, as a user types them."""

import pytest

from lightning_sparse.results import records
from lightning_sparse.results.jobs import read_job

FEW = ["data.texts=1000", "data.batch_size=32", "data.words=1000", "logger=none", "attack=none", "saliency=none"]
SMALL = ["stability.images=20", "stability.hessian_images=20", "cost.images=100", "vog.images=20"]


def rows_of(folder):
    found = {}
    for path in sorted(folder.glob("*/job.json")):
        job = read_job(path)
        found[job.method, job.sparsity_asked] = {row.metric: row for row in records.read(job.rows, job.run)[::-1]}
    return found


@pytest.mark.parametrize("model", ["bag_of_words", "tiny_transformer"])
def test_a_job_of_texts_measures_what_texts_have(command, tmp_path, model):
    asked = ["data=glosses", f"model={model}", "vog=default", "examples=default", "trainer.max_epochs=3", *FEW, *SMALL]
    if model == "tiny_transformer":
        asked += ["sparsity.exclude=[*norm*]"]
    done = command(
        f"output={tmp_path}", "sparsity.include=[*.weight]", "sparsity.final_sparsity=0.5", *asked, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    (rows,) = rows_of(tmp_path / "runs").values()
    assert rows["clean_accuracy"].n == 2250
    assert rows["clean_accuracy"].value > 0.12
    assert rows["vog_mean"].value > 0
    assert {"cost_bits", "cost_flops", "curvature_hessian_eigenvalue"} <= rows.keys()
    assert not {"corruption_mean_accuracy", "shift_consistency", "curvature_jacobian_norm"} & rows.keys()


def test_a_file_of_ones_own_is_data(command, tmp_path):
    lines = [f"{'good' if i % 2 else 'bad'} film {i},{'yes' if i % 2 else 'no'}\n" for i in range(80)]
    (tmp_path / "own.csv").write_text("text,label\n" + "".join(lines))
    done = command(
        f"output={tmp_path}",
        "data=text",
        f"data.file={tmp_path}/own.csv",
        "data.classes=2",
        "data.words=50",
        "data.batch_size=8",
        "model=bag_of_words",
        "trainer.max_epochs=8",
        "sparsity.final_sparsity=0.5",
        "saliency=none",
        "stability=none",
        "transfer=none",
        "cost=none",
        "attack=none",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (rows,) = rows_of(tmp_path / "runs").values()
    assert rows["clean_accuracy"].value == 1.0


def test_a_sweep_of_a_language_model_is_measured_in_bits(command, tmp_path):
    asked = [
        "task=lm",
        "data.texts=200",
        "data.batch_size=10",
        "data.length=24",
        "model.net.layers=1",
        "trainer.max_epochs=2",
        "logger=none",
    ]
    done = command(
        "--multirun",
        f"output={tmp_path}",
        "name=lm",
        "sparsity=dense,brain_development",
        "cost.images=20",
        *asked,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "bits a token" in done.stdout
    rows = rows_of(tmp_path / "lm")
    assert len(rows) == 2
    for found in rows.values():
        assert 3.0 < found["language_bits"].value < 8.0  # a uniform one has 8.01
        assert found["cost_living"].value > 0
        assert found["clean_accuracy"].n == 2250
    report = (tmp_path / "lm" / "report.html").read_text()
    assert "bits a token" in report
    assert "test texts" in report


def test_what_texts_and_language_models_do_not_have_is_refused_before_training(command, tmp_path):
    done = command(f"output={tmp_path}", "data=glosses", "model=bag_of_words", "biases=default", *FEW, cwd=tmp_path)
    assert done.returncode != 0
    assert "biases is measured of pixels, and the data are texts: write biases=none" in done.stderr
    done = command(f"output={tmp_path}", "task=lm", "saliency=default", cwd=tmp_path)
    assert "saliency is measured of classes, and task=lm has none: write saliency=none" in done.stderr
    done = command(f"output={tmp_path}", "task=lm", "data=digits", cwd=tmp_path)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
