"""A sweep over glosses explains words, compares them with those of the dense network, and shows them."""

import numpy as np
import pytest

from lightning_sparse.data import TextData
from lightning_sparse.results import records

SMALL = ["data=glosses", "data.words=600", "data.texts=300", "model=bag_of_words", "trainer.max_epochs=1"]
SMALL += ["saliency=default", "saliency.images=20", "saliency.max_sensitivity=[integrated_gradients]", "seed=0"]
SMALL += [f"{group}=none" for group in ("attack", "stability", "transfer", "cost", "vog", "logger")]


@pytest.fixture(scope="module")
def sweep(command, tmp_path_factory):
    folder = tmp_path_factory.mktemp("glosses")
    levels = ["sparsity=dense,gradual_pruning", "sparsity.final_sparsity=0.5,0.9"]
    done = command("-m", *SMALL, *levels, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "could not be drawn" not in done.stderr
    return folder / "outputs" / "runs"


def test_explanations_are_compared_with_those_of_the_dense_network_at_two_levels(sweep):
    found = [row for row in records.read(sweep / "records.jsonl") if row.metric == "dense_agreement"]
    of_words = {row.sparsity_asked: row for row in found if row.attribution == "integrated_gradients"}
    assert set(of_words) == {0.5, 0.9}
    assert -1 <= of_words[0.9].value < of_words[0.5].value < 1
    assert all(row.n > 10 for row in of_words.values())
    # In a bag all words have the same gradient.
    assert all(row.n == 0 for row in found if row.attribution in ("gradient", "smoothgrad"))


def test_the_words_are_stored_beside_their_numbers(sweep):
    data = TextData(classes=10, words=600, texts=300)
    tokens, labels = data.split("test", 20)
    words = data.word_lists("test", 20)
    files = list(sweep.glob("*/saliency-*.npz"))
    assert len(files) == 3
    for file in files:
        arrays = np.load(file)
        assert np.array_equal(arrays["images"][:, 0, 0], tokens)
        assert np.array_equal(arrays["labels"], labels)
        assert arrays["class_names"].tolist() == data.class_names
        for text, row, maps in zip(words, arrays["words"], arrays["integrated_gradients"], strict=True):
            assert row.tolist() == text + [""] * (32 - len(text))
            assert np.isfinite(maps[0]).tolist() == [bool(word) for word in row]
        assert np.array_equal(arrays["unknown"], tokens == 1)
        rows = records.read(file.parent / "records.jsonl")
        steady = {row.attribution for row in rows if row.metric == "max_sensitivity"}
        assert steady == {"integrated_gradients"}


def test_the_page_shows_a_text_at_every_level(sweep):
    page = (sweep / "report.html").read_text()
    with np.load(next(sweep.glob("dense*/saliency-*.npz"))) as arrays:
        assert sum(f">{word}</span>" in page for word in np.unique(arrays["words"]) if word) > 20
    assert page.count('<th scope="row">sparsity 0.9</th>') == 3 * 5  # methods, texts
    assert (sweep / "figures" / "maps_gradual_pruning_integrated_gradients.png").exists()
