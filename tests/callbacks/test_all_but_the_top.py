"""The top goes before the first mask, once, and what it hid survives pruning."""

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import settings
from lightning_sparse import AllButTheTop, GradualPruning, OneShot, SparsityError
from lightning_sparse.measure import all_but_the_top

WORDS, SIZE, CLASSES = 400, 16, 4
EMBEDDING = {"include": ["embedding.weight"]}


def planted(seed=0):
    """A table as pretrained ones are: each word has a class, hidden under a mean and a direction of frequency."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(CLASSES, (WORDS,), generator=generator)
    meaning = torch.randn(CLASSES, SIZE, generator=generator)[classes]
    frequency = torch.linspace(4, -4, WORDS)[:, None]
    shared = 4 * torch.randn(SIZE, generator=generator) + frequency * torch.randn(SIZE, generator=generator)
    return shared + meaning + 0.3 * torch.randn(WORDS, SIZE, generator=generator), classes


def texts(classes, seed=0, count=512):
    """Eight words each: six of the text's class, and two of any."""
    generator = torch.Generator().manual_seed(100 + seed)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    of_class = [(classes == label).nonzero()[:, 0] for label in range(CLASSES)]
    own = torch.stack(
        [of_class[int(y)][torch.randint(len(of_class[int(y)]), (6,), generator=generator)] for y in labels]
    )
    words = torch.cat([own, torch.randint(WORDS, (count, 2), generator=generator)], 1)
    return TensorDataset(words + 1, labels)  # row 0 is padding


class Bag(settings.Module):
    """A bag of words on a pretrained table."""

    def __init__(self, table, tied=False):
        super().__init__()
        del self.body, self.head
        torch.manual_seed(0)
        rows = torch.cat([torch.zeros(1, SIZE), table])
        self.embedding = nn.Embedding.from_pretrained(rows.clone(), freeze=False, padding_idx=0)
        self.small = nn.Embedding(3, 2)
        self.head = nn.Linear(SIZE, CLASSES)
        if tied:
            self.out = nn.Linear(SIZE, WORDS + 1, bias=False)
            self.out.weight = self.embedding.weight

    def forward(self, x):
        return self.head(self.embedding(x).mean(1))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-3)


class Seen(Callback):
    """What the table was when the sparsity callbacks had made their first masks."""

    def on_train_start(self, trainer, pl_module):
        self.table = pl_module.embedding.weight.detach().clone()


class Save(Callback):
    """A checkpoint of the first epoch."""

    def __init__(self, path):
        self.path = path

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)


def fit(*callbacks, model=None, data=None, epochs=2, **arguments):
    table, classes = planted()
    model = Bag(table) if model is None else model
    loader = DataLoader(texts(classes) if data is None else data, batch_size=64)
    settings.quiet(*callbacks, max_epochs=epochs, **arguments).fit(model, loader)
    return model


def agreement(table, classes):
    """How much nearer words of one class are to each other than to others, in cosines."""
    cosines = nn.functional.normalize(table) @ nn.functional.normalize(table).T
    same = classes[:, None] == classes
    return float(cosines[same].mean() - cosines[~same].mean())


def test_the_top_is_gone_before_the_first_step_and_padding_stays():
    seen, callback = Seen(), AllButTheTop(directions=2, fit=300)
    fit(callback, seen)
    table = planted()[0]
    assert torch.equal(seen.table[1:], all_but_the_top(table, 2, 300))
    assert not seen.table[0].any()
    left = float(all_but_the_top(table, 2, 300).square().sum() / table.square().sum())
    assert callback.removed == pytest.approx(1 - left, abs=1e-6)
    assert callback.removed > 0.8


@pytest.mark.parametrize("first", [True, False])
def test_masks_made_before_the_first_step_rank_what_is_left(first):
    seen, pruning, callback = Seen(), OneShot(0.5, at=0, **EMBEDDING), AllButTheTop()
    fit(*([callback, pruning] if first else [pruning, callback]), seen)
    left = torch.cat([torch.zeros(1, SIZE), all_but_the_top(planted()[0])])
    alive = pruning.masks["embedding.weight"]
    assert torch.equal(seen.table, left * alive)
    assert left[~alive].abs().max() <= left[alive].abs().min()


@pytest.mark.parametrize("seed", range(5))
def test_what_the_top_hid_survives_pruning(seed):
    table, classes = planted(seed)
    found = {}
    for name, callbacks in (("plain", []), ("without", [AllButTheTop()])):
        pruning = GradualPruning(0.9, every=1, end=0.5, **EMBEDDING)
        model = fit(pruning, *callbacks, model=Bag(table), data=texts(classes, seed), epochs=3)
        assert settings.dead_are_zero(model, pruning.masks)
        assert pruning.sparsity == pytest.approx(0.9, abs=1e-3)
        found[name] = agreement(model.embedding.weight.detach()[1:], classes)
    assert found["without"] > 1.5 * found["plain"]


def test_a_resumed_training_removes_nothing_again(tmp_path):
    whole = fit(AllButTheTop(), GradualPruning(0.8, **EMBEDDING), epochs=2)
    fit(AllButTheTop(), GradualPruning(0.8, **EMBEDDING), Save(tmp_path / "half.ckpt"), epochs=2)
    model, callback = Bag(planted()[0]), AllButTheTop()
    trainer = settings.quiet(callback, GradualPruning(0.8, **EMBEDDING), max_epochs=2)
    loader = DataLoader(texts(planted()[1]), batch_size=64)
    trainer.fit(model, loader, ckpt_path=tmp_path / "half.ckpt", **settings.SAFE)
    assert settings.same_state(model, whole)
    assert callback.removed > 0.5


def test_the_same_callback_begins_anew_with_another_training():
    callback, seen = AllButTheTop(), Seen()
    fit(callback)
    fit(callback, seen)
    assert torch.equal(seen.table[1:], all_but_the_top(planted()[0]))


def test_a_tied_output_layer_goes_with_its_embedding():
    seen = Seen()
    model = fit(AllButTheTop(directions=1), seen, model=Bag(planted()[0], tied=True))
    assert model.out.weight is model.embedding.weight
    assert torch.equal(seen.table[1:], all_but_the_top(planted()[0], 1))


def pruned():
    table = planted()[0]
    return Bag(table * (torch.rand(table.shape, generator=torch.Generator().manual_seed(0)) > 0.5))


def computed():
    model = Bag(planted()[0])
    nn.utils.parametrizations.weight_norm(model.embedding)
    return model


@pytest.mark.parametrize(
    ("make", "arguments", "says"),
    [
        (lambda: settings.Module(), {}, "Module has no nn.Embedding"),
        (lambda: Bag(planted()[0]), {"layer": "embeding"}, "layer='embeding' does not exist: did you mean 'embedding'"),
        (lambda: Bag(planted()[0]), {"directions": 16}, r"directions=16 is not an integer in \[0, 15\]: write 15"),
        (lambda: Bag(planted()[0]), {"fit": 401}, r"fit=401 is not an integer in \[1, 400\]: write 400"),
        (
            pruned,
            {},
            "50% of the weights of 'embedding' are zero, and subtracting a mean would fill them: remove the top",
        ),
        (computed, {}, "the weight of 'embedding' is computed from something else: make it a plain parameter first"),
    ],
)
def test_refused_before_the_first_step(make, arguments, says):
    with pytest.raises(SparsityError, match=says):
        fit(AllButTheTop(**arguments), model=make())


def test_rows_of_zeros_alone_are_words_without_a_vector():
    table = planted()[0]
    table[::4] = 0
    seen = Seen()
    fit(AllButTheTop(), seen, model=Bag(table))
    assert torch.equal(seen.table[1:], all_but_the_top(table))


@pytest.mark.parametrize("arguments", [{"layer": 3}, {"directions": -1}, {"directions": 0.5}, {"fit": 0}])
def test_refused_where_it_is_made(arguments):
    with pytest.raises(SparsityError, match=next(iter(arguments))):
        AllButTheTop(**arguments)
