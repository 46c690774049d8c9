"""Texts as data: the glosses, a file of one's own, and what is refused."""

import csv

import pytest
import torch

from lightning_sparse import SparsityError
from lightning_sparse.data import TextData
from lightning_sparse.data.glosses import glosses, synonyms
from lightning_sparse.data.vocabulary import words_of


def written(path, rows, columns=("text", "label")):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def some(path, n=40, **more):
    rows = [(f"{'warm' if i % 2 else 'cold'} day number {i}", "summer" if i % 2 else "winter") for i in range(n)]
    return TextData(written(path / "own.csv", rows), classes=2, **{"length": 6, "words": 30, **more})


@pytest.fixture(scope="module")
def data():
    found = TextData(classes=10, words=500, length=16)
    found.setup()
    return found


def test_no_two_glosses_share_four_fifths_of_their_words():
    texts = [frozenset(words_of(text)) for text, _ in glosses()]
    by_word = {}
    for place, words in enumerate(texts):
        for word in words:
            by_word.setdefault(word, []).append(place)
    for words in texts[::50]:
        rarest = sorted(words, key=lambda word: len(by_word[word]))[: len(words) - int(0.8 * len(words)) + 1]
        near = {place for word in rarest for place in by_word[word]}
        assert sum(len(words & texts[place]) > 0.8 * len(words | texts[place]) for place in near) == 1  # itself


def test_synonyms_are_mutual_and_words_of_the_glosses():
    alike, known = synonyms(), {word for text, _ in glosses() for word in words_of(text)}
    for word, others in alike.items():
        assert word not in others
        assert {word, *others} <= known
        assert all(word in alike[other] for other in others)


def test_splits_are_disjoint_stratified_and_the_same_again(data):
    texts = [" ".join(words) for name in ("train", "validation", "test") for words in data.word_lists(name)]
    assert len(texts) == 15000
    test, labels = data.split("test")
    assert test.shape == (2250, 16)
    assert labels.bincount().tolist() == [225] * 10
    again = TextData(classes=10, words=500, length=16, shuffle_seed=7)
    assert torch.equal(again.split("test")[0], test)
    assert not torch.equal(TextData(classes=10, words=500, length=16, split_seed=1).split("test")[0], test)


def test_tokens_are_the_words_in_their_order(data):
    texts, _ = data.split("validation", 50)
    for row, words in zip(texts.tolist(), data.word_lists("validation", 50), strict=True):
        known = {word: place + 2 for place, word in enumerate(data.vocabulary)}
        expected = [known.get(word, 1) for word in words]
        assert row == expected + [0] * (16 - len(expected))


def test_the_vocabulary_is_of_training_texts_alone_and_the_most_frequent(tmp_path):
    rows = [
        (f"{'sun' if i % 2 else 'ice'} {'seen' if i < 20 else 'unseen'}", str(i % 2), "train" if i < 20 else "test")
        for i in range(40)
    ]
    own = TextData(written(tmp_path / "a.csv", rows, ("text", "label", "split")), classes=2, words=5, length=4)
    texts, _ = own.split("test")
    assert own.vocabulary == ["seen", "ice", "sun"]  # 18, 9, 9: ties by the alphabet
    assert set(texts[:, 1].tolist()) == {1}
    assert len(texts) == 20


def test_bytes_are_those_of_utf8(tmp_path):
    rows = [(f"é{i}", str(i % 2)) for i in range(40)]
    own = TextData(written(tmp_path / "a.csv", rows), classes=2, unit="bytes", words=258, length=5)
    texts, _ = own.split("test")
    assert {tuple(row[:2]) for row in texts.tolist()} == {(0xC3 + 2, 0xA9 + 2)}
    with pytest.raises(SparsityError, match="unit='bytes' has no words"):
        own.synonyms()


def test_training_batches_follow_the_seed_and_the_epoch(tmp_path):
    own = some(tmp_path, shuffle_seed=3)
    first, again = (torch.cat([x for x, _ in own.train_dataloader()]) for _ in range(2))
    assert torch.equal(first, again)
    other = torch.cat([x for x, _ in some(tmp_path, shuffle_seed=4).train_dataloader()])
    assert not torch.equal(first, other)
    assert torch.equal(first.sort(0).values, other.sort(0).values)


def test_wrong_labels_are_planted_in_training_alone():
    clean, noisy = (TextData(classes=10, words=50, label_noise=share) for share in (0.0, 0.3))
    assert torch.equal(clean.split("test")[1], noisy.split("test")[1])
    (_, right), (_, given) = clean.split("train"), noisy.split("train")
    assert torch.equal(noisy.wrong_labels(), right != given)
    assert 0.25 < float((right != given).float().mean()) < 0.29  # .3 * 9 / 10


def test_fewer_texts_are_a_sample_and_change_no_other_split():
    whole, few = TextData(classes=10), TextData(classes=10, texts=200)
    assert torch.equal(few.split("train")[1].bincount(), torch.full((10,), 20))
    assert few.word_lists("test") == whole.word_lists("test")
    assert len(few.vocabulary) < len(whole.vocabulary)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no column text and no column label, but nothing: write data.file="),
        ("text,class\na,b\n", "has no column label, but text, class"),
        ("text,label\na,x\n,y\n", "row 2 of file=.* has no text: remove the row"),
        ("text,label\na\n", "row 1 of file=.* has no label"),
        ("text,label,split\na,x,train\nb,y,dev\n", "holds 'dev', 'train': write train or test in every row"),
        ("text,label,split\na,x,train\nb,y,\n", "holds '', 'train'"),
        ("text,label\na,x\n?!,y\n", r"row 2 of file=.* has no word, only '\?!'"),
        ("text,label\na,x\nb,x\n", "has 1 classes, not classes=2"),
        ("text,label\n", "has 0 classes, not classes=2"),
        ("text,label\na,x\nb,y\n", "class 0 has a single one of 2 texts, and cannot be split"),
        ("text,label,split\na,x,train\nb,y,train\nc,x,test\n", "only one of them has y; give both the same"),
    ],
)
def test_a_broken_file_is_named(tmp_path, content, message):
    path = tmp_path / "own.csv"
    path.write_text(content)
    with pytest.raises(SparsityError, match=message):
        TextData(path, classes=2).setup()


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(SparsityError, match=r"cannot be read \(No such file or directory\): write data.file="):
        TextData(tmp_path / "none.csv", classes=2).setup()
    with pytest.raises(SparsityError, match=r"cannot be read \(Is a directory\)"):
        TextData(tmp_path, classes=2).setup()
    path = tmp_path / "latin.csv"
    path.write_bytes("text,label\nschön,x\n".encode("latin-1"))
    with pytest.raises(SparsityError, match=r"is not in UTF-8 .*: save it in that encoding"):
        TextData(path, classes=2).setup()


def test_tabs_and_a_byte_order_mark_are_read(tmp_path):
    path = tmp_path / "own.tsv"
    path.write_text("\ufefftext\tlabel\n" + "".join(f"a, {i}\t{i % 2}\n" for i in range(40)), encoding="utf-8")
    own = TextData(path, classes=2)
    own.setup()
    assert own.class_names == ["0", "1"]
    assert own.vocabulary[0] == "a"


def test_twins_of_training_texts_are_told(tmp_path):
    rows = [("the same", str(i % 2)) for i in range(40)]
    with pytest.warns(UserWarning, match="6 of 6 test texts of file=.* are among the training texts"):
        TextData(written(tmp_path / "a.csv", rows), classes=2).setup()


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("test", 1.0, "test=1.0 leaves an empty split"),
        ("words", 2, "words=2"),
        ("length", 0, "length=0"),
        ("unit", "letters", "unit='letters'"),
        ("unit", "bytes", "words=8000 is not the number of bytes .*: write words=258"),
        ("file", 7, "file=7 is not a path"),
        ("texts", 3, "texts=3"),
    ],
)
def test_arguments_out_of_range_are_refused_at_once(argument, value, message):
    with pytest.raises(SparsityError, match=message):
        TextData(**{"classes": 10, argument: value})
