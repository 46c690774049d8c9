"""Texts attacked by the command: synonyms by default, moves in the embedding on request, and what is refused."""

import numpy as np
import pytest

from lightning_sparse.results import records

TEXTS = ["data=glosses", "model=bag_of_words", "data.texts=300", "trainer.max_epochs=1", "saliency=none", "cost=none"]
TEXTS += ["stability=none", "attack.images=60", "sparsity.final_sparsity=0.5"]


@pytest.fixture(scope="module")
def job(command, tmp_path_factory):
    """A network attacked by synonyms, and then in the embedding: its folder, and what the second launch said."""
    cwd = tmp_path_factory.mktemp("texts")
    first = command(*TEXTS, "attack.eps=[0.1,1]", cwd=cwd)
    assert first.returncode == 0, first.stderr
    second = command(*TEXTS, "attack=embedding", "attack.eps=[0.1]", "attack.steps=3", cwd=cwd)
    assert second.returncode == 0, second.stderr
    (folder,) = (cwd / "outputs" / "runs").glob("*/")
    return folder, second.stdout


def test_both_norms_are_rows_of_one_trained_network(job):
    folder, said = job
    rows = records.read(folder / "records.jsonl")
    robust = [row for row in rows if row.metric == "robust_accuracy"]
    assert {(row.norm, row.attack, row.eps) for row in robust} == {
        *(("synonyms", attack, eps) for attack in ("pwws", "greedy-margin", "worst") for eps in (0.1, 1.0)),
        *(("embedding", attack, 0.1) for attack in ("pgd", "pgd-margin", "worst")),
    }
    assert all(row.n == 60 and row.trust for row in robust)
    shares = {row.metric: row.value for row in rows if row.metric.endswith("_words")}
    assert 0 < shares["robust_replaceable_words"] < 1 - shares["robust_unknown_words"] < 1
    assert "robust" in said
    assert sorted(float(np.load(path)["eps"][0]) for path in folder.glob("robust-*.npz")) == [0.1, 0.1, 1.0]
    assert not list(folder.glob("transfer-*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*TEXTS, "attack=digits", "transfer=none"], "norm='Linf' is of images, and data holds tokens of shape (2, 32)"),
        ([*TEXTS, "attack.eps=[1.2]"], "attack.eps=1.2 is not in (0, 1], the share of the text's words replaced: write"),
        ([*TEXTS, "attack.attacks=[square]"], "attack.attacks='square' does not exist"),
        (["attack=glosses", "saliency=none"], "norm='synonyms' is of texts, and data holds images of shape (2, 1, 8, 8)"),
    ],
)  # fmt: skip
def test_norms_that_do_not_fit_the_data_are_refused_before_training(command, tmp_path, arguments, message):
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode != 0
    assert message in done.stderr + done.stdout
    assert not list(tmp_path.glob("**/model.ckpt"))
