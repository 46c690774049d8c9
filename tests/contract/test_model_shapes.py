"""Models as people build them: tied, lazy, frozen, late, tiny, convolutional, shared between optimizers."""

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn

import settings
from contract.looking import Backboned, check, fit
from lightning_sparse import GradualPruning, SparsityError, load_masks

pytestmark = [
    # A frozen weight has no gradient to grow by, which is said once.
    pytest.mark.filterwarnings("ignore:no gradient for:UserWarning"),
    # Checkpoints are read back without the callback that saved them.
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning"),
]


class Looking(settings.Module):
    """Looks at its weights in every step, as soon as a callback has masks."""

    def forward(self, x):
        if not self.trainer.sanity_checking:
            method = self.trainer.callbacks[0]
            assert settings.dead_are_zero(self, method.masks), "a dead weight is not zero in a forward pass"
            self.looked = getattr(self, "looked", 0) + 1
        return super().forward(x)


class Tied(Looking):
    """Two layers that are one weight, and an autoencoder's way back through the transposed first."""

    def __init__(self):
        super().__init__()
        self.again = nn.Linear(30, 30)
        self.once_more = nn.Linear(30, 30)
        self.once_more.weight = self.again.weight
        self.nested = nn.ModuleDict({"whole": self.again})

    def forward(self, x):
        super().forward(x)
        return self.head(self.once_more(self.again(self.body(x)).relu()).relu())


def test_a_tied_weight_counts_once(make_method, make_trainer):
    model, method = Tied(), make_method(0.9)
    fit(make_trainer, method, model)
    check(model, method, ["body.0.weight", "body.3.weight", "head.weight", "again.weight"])
    assert method.masks.total == 64 * 60 + 60 * 30 + 30 * 10 + 30 * 30
    assert model.once_more.weight is model.again.weight


class Configured(Looking):
    def configure_model(self):
        if not hasattr(self, "extra"):
            self.extra = nn.Linear(10, 10)

    def forward(self, x):
        return self.extra(super().forward(x))


class SetUp(Looking):
    def setup(self, stage):
        self.extra = nn.Linear(10, 10)

    def forward(self, x):
        return self.extra(super().forward(x))


@pytest.mark.parametrize("kind", [Configured, SetUp])
def test_layers_made_by_a_hook_are_sparse_too(make_method, kind, make_trainer):
    model, method = kind(), make_method(0.9)
    fit(make_trainer, method, model)
    check(model, method, ["body.0.weight", "body.3.weight", "head.weight", "extra.weight"])


@pytest.mark.parametrize("kind", [Configured, SetUp])
def test_a_pattern_may_name_a_layer_that_a_hook_makes(kind, make_trainer):
    model, method = kind(), GradualPruning(0.5, include=["extra.weight"])
    fit(make_trainer, method, model)
    check(model, method, ["extra.weight"], sparsity=0.5)


class Autoregressive(nn.Linear):
    """As in MADE: the architecture has a mask of its own, in a buffer with the name that torch's prune uses too."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.register_buffer("weight_mask", torch.ones(outputs, inputs).tril())

    def forward(self, x):
        return nn.functional.linear(x, self.weight * self.weight_mask, self.bias)


class WithBuffers(Looking):
    def __init__(self):
        super().__init__()
        self.extra = Autoregressive(10, 10)

    def forward(self, x):
        return self.extra(super().forward(x))


def test_buffers_whose_names_end_in_mask_are_left_alone(make_method, make_trainer):
    model, method = WithBuffers(), make_method(0.9)
    fit(make_trainer, method, model)
    check(model, method, ["body.0.weight", "body.3.weight", "head.weight", "extra.weight"])
    assert torch.equal(model.attention_mask, torch.ones(3))
    assert torch.equal(model.extra.weight_mask, torch.ones(10, 10).tril())
    assert list(model.state_dict()) == list(WithBuffers().state_dict())


class Lazy(Looking):
    def __init__(self):
        super().__init__()
        self.body[0] = nn.LazyLinear(60)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def dry(self, x):
        return settings.Module.forward(self, x)


def test_a_lazy_layer_is_refused_until_it_has_a_shape(make_method, make_trainer):
    model = Lazy()
    with pytest.raises(SparsityError, match=r"'body\.0\.weight' has no shape yet .*run one batch through the model"):
        fit(make_trainer, make_method(0.9), model)
    with torch.no_grad():
        model.dry(torch.zeros(2, 64))
    method = make_method(0.9)
    fit(make_trainer, method, model)
    check(model, method, ["body.0.weight", "body.3.weight", "head.weight"])


class Spectral(settings.Module):
    """A complex layer beside a real one."""

    def __init__(self):
        super().__init__()
        self.fourier = nn.Linear(64, 60, dtype=torch.complex64)
        self.table = nn.Parameter(torch.arange(6), requires_grad=False)

    def forward(self, x):
        return super().forward(x) + 0.1 * self.fourier(x.to(torch.complex64)).abs()[:, :10]


@pytest.mark.parametrize(
    ("include", "message"),
    [
        (None, r"'fourier\.weight' holds torch\.complex64, not floating point: exclude it"),
        (["head.weight", "table"], r"'table' holds torch\.int64, not floating point: exclude it"),
    ],
)
def test_complex_and_integer_weights_are_refused_by_name(make_method, include, message, make_trainer):
    with pytest.raises(SparsityError, match=message):
        fit(make_trainer, make_method(0.9, include=include), Spectral())


def test_complex_and_integer_weights_that_are_left_out_are_no_trouble(make_method, make_trainer):
    model, method = Spectral(), make_method(0.9, exclude=["fourier.weight"])
    fit(make_trainer, method, model)
    assert list(method.masks) == ["body.0.weight", "body.3.weight", "head.weight"]
    assert settings.exact(method.masks, 0.9)
    assert settings.dead_are_zero(model, method.masks)
    assert bool((model.fourier.weight != 0).all())


class Weightless(LightningModule):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(64)
        self.scale = nn.Parameter(torch.ones(10, 64))

    def training_step(self, batch, batch_idx):
        raise AssertionError("training has started")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_model_with_nothing_to_make_sparse_is_refused_with_what_there_is(make_method, make_trainer):
    message = r"Weightless has no weight to make sparse.*include=\[\.\.\.\].*norm\.weight, norm\.bias"
    with pytest.raises(SparsityError, match=message):
        fit(make_trainer, make_method(0.9), Weightless())
    model = Backboned().requires_grad_(False)
    model.head.bias.requires_grad_(True)
    with pytest.raises(SparsityError, match=r"trainable weights .* none left"):
        fit(make_trainer, make_method(0.9), model)


class Shared(Looking):
    """Two optimizers take turns, and both own the head."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        optimizer = self.optimizers()[batch_idx % 2]
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def configure_optimizers(self):
        head = list(self.head.parameters())
        return (
            torch.optim.SGD([*self.body.parameters(), *head], lr=0.1, momentum=0.9),
            torch.optim.Adam(head, lr=0.01),
        )


def test_a_weight_of_two_optimizers_is_masked_after_each_and_the_first_is_the_clock(make_method, make_trainer):
    model, method = Shared(), make_method(0.9, total_steps=10)
    fit(make_trainer, method, model)
    check(model, method, ["body.0.weight", "body.3.weight", "head.weight"])
    assert method.engine.clock == 10


class Convolutions(LightningModule):
    """Every kind, side by side on the same 64 pixels, in torch's memory format for images or not."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        shapes = {1: (4, 16), 2: (4, 4, 4), 3: (1, 4, 4, 4)}
        self.shapes = [shapes[d] for d in (1, 2, 3, 1, 2, 3)]
        kinds = [nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d]
        self.kinds = nn.ModuleList(k(s[0], 5, 3, padding=1) for k, s in zip(kinds, self.shapes, strict=True))
        self.grouped = nn.Conv2d(4, 8, 3, padding=1, groups=4)
        self.head = nn.LazyLinear(10)
        self.looked = 0
        with torch.no_grad():
            self(torch.zeros(2, 64))

    def forward(self, x):
        seen = [kind(x.view(-1, *shape)).relu().flatten(1) for kind, shape in zip(self.kinds, self.shapes, strict=True)]
        return self.head(torch.cat([*seen, self.grouped(x.view(-1, 4, 4, 4)).relu().flatten(1)], 1))

    def training_step(self, batch, batch_idx):
        assert settings.dead_are_zero(self, self.trainer.callbacks[0].masks)
        self.looked += 1
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    configure_optimizers = settings.Module.configure_optimizers
    lr = 0.05


CONVOLUTIONS = [*(f"kinds.{i}.weight" for i in range(6)), "grouped.weight", "head.weight"]


def test_convolutions_of_every_kind(make_method, make_trainer):
    model, method = Convolutions(), make_method(0.9)
    fit(make_trainer, method, model)
    check(model, method, CONVOLUTIONS)
    assert 0 < method.masks.living < method.masks.total


def test_channels_last_is_another_memory_layout_and_the_same_training(make_method, make_trainer, tmp_path):
    methods = []
    for layout in (torch.contiguous_format, torch.channels_last):
        model, method = Convolutions(), make_method(0.9)
        for layer in (model.kinds[1], model.kinds[4], model.grouped):
            layer.to(memory_format=layout)
        trainer = fit(make_trainer, method, model)
        check(model, method, CONVOLUTIONS)
        assert model.kinds[1].weight.is_contiguous(memory_format=layout)
        methods.append(method)
    one, other = (method.masks for method in methods)
    # Sums may be taken in another order, so that a near tie may fall the other way: masks agree but for a few.
    assert sum(int((one[name] != other[name]).sum()) for name in one) <= 0.02 * one.total

    trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=False)
    assert load_masks(tmp_path / "last.ckpt").checksum() == other.checksum()
    held = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert all(bool((held[name][~mask] == 0).all()) for name, mask in other.items())


class Tiny(Looking):
    """A bottleneck of one unit: layers of one, two and ten weights after a large one."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 60), nn.ReLU(), nn.Linear(60, 2), nn.Linear(2, 1), nn.Linear(1, 1))
        self.head = nn.Linear(1, 10)


@pytest.mark.parametrize("allocation", ["global", "uniform", "erk"])
def test_a_very_small_layer_is_never_emptied(make_method, allocation, make_trainer):
    model, method = Tiny(), make_method(0.99, allocation=allocation)
    emptied = []

    class Count(Callback):
        def on_train_batch_end(self, *_):
            emptied.extend(name for name, mask in method.masks.items() if not mask.any())

    fit(make_trainer, method, model, Count())
    check(model, method, ["body.0.weight", "body.2.weight", "body.3.weight", "body.4.weight", "head.weight"], 0.99)
    assert not emptied
    assert method.masks["body.4.weight"].all()  # it has one weight


def test_more_layers_than_connections_to_keep_are_refused(make_method, make_trainer):
    with pytest.raises(SparsityError, match="for 5 layers"):
        fit(make_trainer, make_method(0.9999), Tiny())


class Scored(Looking):
    def validation_step(self, batch, batch_idx):
        self.log("accuracy", (settings.Module.forward(self, batch[0]).argmax(1) == batch[1]).float().mean())


def test_the_best_checkpoint_has_the_score_it_was_chosen_by(make_method, make_trainer, tmp_path):
    keep = ModelCheckpoint(tmp_path, monitor="accuracy", mode="max", save_top_k=3, filename="{step}")
    model, method = Scored(), make_method(0.9)
    trainer = make_trainer(method, keep, max_epochs=2, val_check_interval=3, enable_checkpointing=True)
    trainer.fit(model, settings.batches(), settings.batches())
    assert len(keep.best_k_models) == 3
    for file, score in keep.best_k_models.items():
        again, reader = Scored(), make_method(0.9)
        scores = make_trainer(reader).validate(again, settings.batches(), file, verbose=False, **settings.SAFE)
        assert scores[0]["accuracy"] == score.item()
        assert settings.dead_are_zero(again, load_masks(file))
        assert reader.masks.checksum() == load_masks(file).checksum()
    assert keep.best_model_score == max(keep.best_k_models.values())
