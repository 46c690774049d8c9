"""What a sparsity is about is said: how many weights it takes, what it leaves out, what it cannot take yet."""

import ast
import logging
import re
import warnings

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import BackboneFinetuning
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import networks
import settings
from lightning_sparse import GradualPruning, RigL, sparsifiable, sparsity_of
from lightning_sparse.models.networks import resnet20


class Tokens(LightningModule):
    """Anything that reads whole numbers and gives logits, or a transformers model."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def training_step(self, batch, batch_idx):
        x, y = batch
        found = self.net(x)
        logits = getattr(found, "logits", found)
        return cross_entropy(logits[:, -1] if logits.dim() == 3 else logits, y)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-3)


class Images(Tokens):
    def training_step(self, batch, batch_idx):
        return cross_entropy(self.net(batch[0].view(-1, 1, 8, 8)), batch[1])


def tokens():
    x = torch.randint(1, 17, (128, 6), generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(x, x[:, 0] % 4), 32)


def fit(make_trainer, module, *callbacks, loader=None, **arguments):
    """Train, and return what was warned of."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        make_trainer(*callbacks, **{"max_epochs": 2, **arguments}).fit(module, loader or tokens())
    return [str(warning.message) for warning in said if "sparse" in str(warning.message)]


def advice(message, argument="include"):
    return ast.literal_eval(re.search(rf"{argument}=(\[.*?\])", message)[1])


def gpt2():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=17, n_positions=8, num_labels=4)
    config.pad_token_id, config.bos_token_id, config.eos_token_id = 0, 0, 0
    return transformers.GPT2ForSequenceClassification(config)


def mixtral():
    """Two layers of four experts, which are parameters of three dimensions."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.MixtralConfig(
        **sizes, num_key_value_heads=2, num_local_experts=4, vocab_size=17, max_position_embeddings=16
    )
    return transformers.MixtralForCausalLM(config)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(17, 4)
        self.rnn = nn.LSTM(4, 12, num_layers=2, batch_first=True)
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        return self.head(self.rnn(self.table(x))[0][:, -1])


class OwnMatrices(nn.Module):
    """A layer that multiplies with parameters of its own."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(17, 4)
        self.mix = nn.ParameterList([nn.Parameter(torch.randn(24, 24) / 5) for _ in range(3)])
        self.scale = nn.Parameter(torch.ones(1, 1, 24))
        self.head = nn.Linear(24, 4)

    def forward(self, x):
        x = self.table(x).flatten(1)
        for matrix in self.mix:
            x = torch.relu(x @ matrix * self.scale[0])
        return self.head(x)


class GptLike(nn.Module):
    """A table of tokens that is larger than all else."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(500, 8)
        self.body = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.LayerNorm(8))
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.body(self.table(x)).mean(1))


LEFT_OUT = {
    "experts": (mixtral, ["MixtralExperts (12,288)", "Embedding (272)"], 12),
    "lstm": (Recurrent, ["LSTM (1,920)", "Embedding (68)"], 3),
    "matrices of one's own": (OwnMatrices, ["ParameterList (1,728)", "Embedding (68)"], 3),
    "a large embedding": (GptLike, ["Embedding (4,000)"], 3),
}


@pytest.mark.parametrize(("make", "classes", "most"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_most_matrices_left_out_are_named_and_the_include_that_takes_them_trains(make_trainer, make, classes, most):
    torch.manual_seed(0)
    callback = GradualPruning(0.8)
    (said,) = fit(make_trainer, Tokens(make()), callback)
    assert said.startswith("GradualPruning: ")
    assert all(name in said for name in classes)
    default, include = set(callback.masks), advice(said)
    assert len(include) <= most
    module, callback = Tokens(make()), GradualPruning(0.8, include=include)
    chosen = sparsifiable(module, include)
    wanted = [n for n, p in module.named_parameters() if n in default or sum(size > 1 for size in p.shape) > 1]
    assert list(chosen) == wanted
    assert not fit(make_trainer, module, callback)
    assert settings.exact(callback.masks, 0.8)
    assert settings.dead_are_zero(module, callback.masks)
    assert sparsity_of(module, include) >= callback.sparsity
    callback = GradualPruning(0.8, exclude=advice(said, "exclude"))
    assert not fit(make_trainer, Tokens(make()), callback)
    assert set(callback.masks) == default


def test_gpt2_is_sparse_by_default_and_its_groups_run_along_the_inputs(make_trainer):
    module, callback = Tokens(gpt2()), GradualPruning(0.5, granularity="2:4")
    assert not fit(make_trainer, module, callback)
    assert callback.masks.total == 2 * (16 * 48 + 16 * 16 + 16 * 64 + 64 * 16) + 4 * 16
    for name, mask in callback.masks.items():
        inputs_last = mask if name == "net.score.weight" else mask.T
        assert inputs_last.reshape(inputs_last.shape[0], -1, 4).sum(2).eq(2).all()
    assert settings.dead_are_zero(module, callback.masks)


@pytest.mark.parametrize(
    ("module", "loader"),
    [
        (settings.Module, settings.batches),
        (lambda: Images(resnet20((1, 8, 8), 10)), settings.batches),
        (networks.Transformer, settings.batches),
        (networks.Tokens, settings.batches),
    ],
    ids=["mlp", "resnet", "transformer", "small embedding"],
)
def test_usual_networks_are_not_warned_of(make_trainer, module, loader):
    assert not fit(make_trainer, module(), GradualPruning(0.5), loader=loader(), max_epochs=1)


def test_what_the_user_has_chosen_is_not_warned_of(make_trainer):
    assert not fit(make_trainer, Tokens(Recurrent()), GradualPruning(0.5, include=["net.head.weight"]))
    assert not fit(make_trainer, Tokens(Recurrent()), GradualPruning(0.5, exclude=["net.rnn.*", "net.table.*"]))
    both = GradualPruning(0.5, exclude=["net.table.*"]), GradualPruning(0.5, include=["net.rnn.weight*"])
    assert not fit(make_trainer, Tokens(Recurrent()), *both)


def test_frozen_weights_and_those_of_no_optimizer_are_not_warned_of(make_trainer):
    class Partly(Tokens):
        def configure_optimizers(self):
            return torch.optim.SGD([*self.net.rnn.parameters(), *self.net.head.parameters()], 0.1)

    module = Partly(Recurrent())
    module.net.rnn.requires_grad_(False)
    module.net.table.weight.requires_grad_(False)
    assert not fit(make_trainer, module, GradualPruning(0.5))
    module.net.table.weight.requires_grad_(True)  # a table that no optimizer trains
    assert not fit(make_trainer, module, GradualPruning(0.5))


def llama():
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=17, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, num_labels=4,
        tie_word_embeddings=True, pad_token_id=0,
    )  # fmt: skip
    return transformers.LlamaForSequenceClassification(config)


def bert():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=17, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, num_labels=4,
        max_position_embeddings=8,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


@pytest.mark.parametrize("make", [gpt2, bert, llama])
def test_norms_and_biases_that_a_pattern_takes_are_said_and_the_exclude_leaves_them(make_trainer, make):
    (message,) = fit(make_trainer, Tokens(make()), GradualPruning(0.5, include=["*"]))
    assert "biases and weights of norms sparse too" in message
    excluded = advice(message, "exclude")
    module, callback = Tokens(make()), GradualPruning(0.5, include=["*"], exclude=excluded)
    assert not fit(make_trainer, module, callback)
    assert callback.sparsity == pytest.approx(0.5, abs=1e-3)
    assert all(module.get_parameter(name).dim() > 1 for name in callback.masks)
    assert {name for name, p in module.named_parameters() if p.dim() > 1} == set(callback.masks)


def test_norms_that_are_named_alone_are_meant(make_trainer):
    assert not fit(make_trainer, Tokens(Recurrent()), GradualPruning(0.5, include=["net.rnn.bias*"]))


def test_a_vision_transformer_of_transformers_is_sparse_by_default(make_trainer):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        image_size=8, patch_size=4, num_channels=1, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, num_labels=10,
    )  # fmt: skip
    net = transformers.ViTForImageClassification(config)
    module = settings.Module()
    module.forward = lambda images: net(images.view(-1, 1, 8, 8)).logits
    del module.body, module.head
    module.net = net
    callback = GradualPruning(0.5)
    assert not fit(make_trainer, module, callback, loader=settings.batches())
    kinds = {type(net.get_submodule(name.removeprefix("net.").rpartition(".")[0])).__name__ for name in callback.masks}
    assert kinds == {"Linear", "Conv2d"}


def line_of(make_trainer, caplog, module, callback, loader):
    make = make_trainer(callback, max_epochs=1)
    logging.getLogger("lightning.pytorch").setLevel(logging.INFO)
    with caplog.at_level(logging.INFO):
        make.fit(module, loader)
    (line,) = [record.getMessage() for record in caplog.records if "targets" in record.getMessage()]
    return line


def test_one_line_says_how_much_is_sparse(make_trainer, caplog):
    line = line_of(make_trainer, caplog, settings.Module(), GradualPruning(0.5), settings.batches())
    weights, biases, norm = 64 * 60 + 60 * 30 + 30 * 10, 60 + 30 + 10, 2 * 60
    assert line == f"GradualPruning: {weights:,} of {weights + biases + norm:,} weights are targets, in 3 of 3 matrices"


def test_the_line_says_what_is_frozen(make_trainer, caplog):
    module = settings.Module()
    module.body.requires_grad_(False)
    line = line_of(make_trainer, caplog, module, RigL(0.5, every=2), settings.batches())
    assert line == (
        "RigL: 300 of 6,160 weights are targets, in 1 of 3 matrices; 5,850 weights are frozen, and no targets"
    )


class Backboned(settings.Module):
    """What BackboneFinetuning asks for: the optimizer gets the backbone when it is unfrozen."""

    def __init__(self):
        super().__init__()
        self.backbone = self.body
        del self.body

    def forward(self, x):
        return self.head(self.backbone(x))

    def configure_optimizers(self):
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.1)


@pytest.mark.parametrize("first", [True, False])
def test_layers_that_are_unfrozen_later_are_said_once_and_the_include_takes_them(make_trainer, first):
    def train(callback):
        module, unfreezing = Backboned(), BackboneFinetuning(unfreeze_backbone_at_epoch=2)
        order = (callback, unfreezing) if first else (unfreezing, callback)
        return module, fit(make_trainer, module, *order, loader=settings.batches(), max_epochs=5)

    callback = GradualPruning(0.9)
    module, (said,) = train(callback)
    assert "5,640 weights are trained now and stay dense" in said
    assert callback.sparsity == 0.9
    assert sparsity_of(module) == pytest.approx(0.9 * 300 / 5940)

    callback = GradualPruning(0.9, include=advice(said))
    module, said = train(callback)
    assert not said
    assert set(callback.masks) == {"backbone.0.weight", "backbone.3.weight", "head.weight"}
    assert sparsity_of(module) == callback.sparsity == pytest.approx(0.9, abs=1 / 5940)


def test_layers_that_are_unfrozen_only_in_the_last_epoch_are_said(make_trainer):
    said = fit(
        make_trainer,
        Backboned(),
        GradualPruning(0.9),
        BackboneFinetuning(unfreeze_backbone_at_epoch=1),
        loader=settings.batches(),
    )
    assert len(said) == 1


def test_layers_that_stay_frozen_or_are_excluded_are_not_warned_of(make_trainer):
    fine = {"loader": settings.batches(), "max_epochs": 3}
    assert not fit(make_trainer, Backboned(), GradualPruning(0.9), BackboneFinetuning(5), **fine)
    callback = GradualPruning(0.9, exclude=["backbone.*"])
    assert not fit(make_trainer, Backboned(), callback, BackboneFinetuning(1), **fine)
