"""An embedding begins with the vectors of a file, before the first mask, and a training that resumes keeps its own."""

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

import settings
from lightning_sparse import AllButTheTop, OneShot, PretrainedVectors, SparsityError
from lightning_sparse.data import TextData
from lightning_sparse.measure import all_but_the_top
from lightning_sparse.models import Classifier, bag_of_words

LINES = "of 3 4\nthe 0 1\nlichen 5 5\na 1 0\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text(LINES)
    return path


class First(Callback):
    """Keeps the table as the first step finds it."""

    def on_train_start(self, trainer, pl_module):
        self.table = pl_module.net.words.weight.detach().clone()


WORDS = 7  # padding, the unknown word, and the five most frequent: of, a, the, or, in


def texts(words=WORDS):
    return TextData(classes=10, words=words, texts=200, batch_size=50)


def bag(dimensions=2, words=WORDS):
    torch.manual_seed(0)
    return Classifier(
        bag_of_words(words, 10, dimensions=dimensions, hidden=4), mean=None, std=None, schedule="constant"
    )


def fit(model, *callbacks, data=None, **trainer):
    first = First()
    settings.quiet(*callbacks, first, **{"max_epochs": 1, **trainer}).fit(model, datamodule=data or texts())
    return first


def test_rows_of_words_are_those_of_the_file_and_the_others_stay(file):
    data, model = texts(), bag()
    data.setup()
    before = model.net.words.weight.detach().clone()
    callback = PretrainedVectors(file)
    table = fit(model, callback, data=data).table
    rows = [data.vocabulary.index(word) + 2 for word in ("of", "the", "a")]
    assert callback.found == 3
    scale = before[rows].norm(dim=1).mean() / ((5 + 1 + 1) / 3)
    assert torch.allclose(table[rows], scale * torch.tensor([[3.0, 4.0], [0.0, 1.0], [1.0, 0.0]]))
    others = [row for row in range(WORDS) if row not in rows]
    assert torch.equal(table[others], before[others])


def test_the_top_is_that_of_the_rows_that_were_found(tmp_path):
    data = texts()
    data.setup()
    rows = torch.randn(len(data.vocabulary), 4, generator=torch.Generator().manual_seed(1)) + 3
    lines = [" ".join([word, *map(str, row.tolist())]) for word, row in zip(data.vocabulary, rows, strict=True)]
    (tmp_path / "v.txt").write_text("\n".join(lines))
    table = fit(bag(4), PretrainedVectors(tmp_path / "v.txt", directions=1), data=data).table[2:]
    expected = all_but_the_top(rows, 1)
    assert torch.allclose(table / table.norm(), expected / expected.norm(), atol=1e-5)


def test_masks_are_of_the_file_s_vectors(file):
    table = fit(bag(), PretrainedVectors(file)).table
    sparse = OneShot(0.5, at=0, include=["net.words.weight"])
    fit(bag(), sparse, PretrainedVectors(file))  # in any order
    assert torch.equal(sparse.masks["net.words.weight"], table.abs() > table.abs().flatten().sort().values[6])


def test_a_training_that_resumes_reads_no_file(file, tmp_path):
    whole, half = bag(), bag()
    fit(whole, PretrainedVectors(file), max_epochs=2)
    trainer = settings.quiet(PretrainedVectors(file), max_epochs=1)
    trainer.fit(half, datamodule=texts())
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    file.unlink()
    again = bag()
    settings.quiet(PretrainedVectors(file), max_epochs=2).fit(
        again, datamodule=texts(), ckpt_path=tmp_path / "half.ckpt"
    )
    assert torch.equal(again.net.words.weight, whole.net.words.weight)


class Alike(Callback):
    """Fails in a rank whose table is not that of the other, or has nothing of the file."""

    def on_train_start(self, trainer, pl_module):
        mine = pl_module.net.words.weight.detach()
        first, second = pl_module.all_gather(mine)
        assert torch.equal(first, second)
        assert not torch.equal(mine, bag().net.words.weight.detach())


def test_two_processes_begin_with_the_same(file):
    model = bag()
    settings.quiet(PretrainedVectors(file), Alike(), max_epochs=1, strategy="ddp_spawn", devices=2).fit(
        model, datamodule=texts()
    )
    assert model.net.words.weight.isfinite().all()


def test_words_say_what_each_row_is(file):
    class Own(settings.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(6, 2)

    model = Own()
    settings.quiet(PretrainedVectors(file, words=["", "lichen", "the", "?"]), max_steps=1).fit(
        model, settings.batches()
    )
    row = model.table.weight.detach()[1]
    assert row[0] == row[1] != 0


@pytest.mark.parametrize(
    ("dimensions", "more", "said"),
    [
        (3, {}, "has vectors of 2 dimensions and 'net.words' of 3: write dimensions=2 .* model.net.dimensions=2"),
        (2, {"layer": "words"}, "layer='words'"),
        (2, {"words": [""] * 8}, "words=.* has 8 entries, and 'net.words' 7 rows"),
        (2, {"words": ["", "moos"]}, "has 0 of the 1 words"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_step(file, dimensions, more, said):
    first = First()
    with pytest.raises(SparsityError, match=said):
        settings.quiet(PretrainedVectors(file, **more), first).fit(bag(dimensions), datamodule=texts())
    assert not hasattr(first, "table")


def test_images_have_no_vocabulary(file):
    class Own(settings.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(6, 2)

    with pytest.raises(SparsityError, match=r"has no vocabulary: write words=\[\.\.\.\]"):
        settings.quiet(PretrainedVectors(file), max_steps=1).fit(Own(), settings.batches())


def test_few_words_are_said(file):
    with pytest.warns(UserWarning, match="only 3 of the 48 words of 'net.words'"):
        fit(bag(words=50), PretrainedVectors(file), data=texts(50))


def test_beside_all_but_the_top_it_is_said_what_to_write(file):
    with pytest.raises(SparsityError, match=r"write PretrainedVectors\(directions=1\)"):
        fit(bag(), PretrainedVectors(file), AllButTheTop(directions=1))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"file": 3}, "file=3"),
        ({"layer": 3}, "layer=3"),
        ({"directions": -1}, "directions=-1"),
        ({"words": "of"}, "words='of'"),
        ({"words": False}, "words=False"),
        ({"words": [1]}, r"words=\[1\]"),
    ],
)
def test_arguments_out_of_range(arguments, said):
    with pytest.raises(SparsityError, match=said):
        PretrainedVectors(**arguments)
