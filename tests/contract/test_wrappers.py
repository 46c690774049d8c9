"""What else may sit on a weight: reparametrisations, torch's own pruning, adapters, quantised layers, odd optimizers."""

import warnings

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import settings
from lightning_sparse import GradualPruning, SparseTraining, SparsityError, attach
from lightning_sparse.compress import Code, Prune, compress, decompress


class Doubled(nn.Module):
    """Any parametrization."""

    def forward(self, weight):
        return 2 * weight


def old_weight_norm(layer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # says that it is old
        nn.utils.weight_norm(layer)


WRAPPERS = {
    "weight_norm, old": (old_weight_norm, ["weight_g", "weight_v"]),
    "weight_norm": (parametrizations.weight_norm, [f"parametrizations.weight.original{i}" for i in (0, 1)]),
    "spectral_norm, old": (nn.utils.spectral_norm, ["weight_orig"]),
    "spectral_norm": (parametrizations.spectral_norm, ["parametrizations.weight.original"]),
    "orthogonal": (parametrizations.orthogonal, ["parametrizations.weight.original"]),
    "parametrize": (
        lambda layer: parametrize.register_parametrization(layer, "weight", Doubled()),
        ["parametrizations.weight.original"],
    ),
    "prune": (lambda layer: prune.l1_unstructured(layer, "weight", amount=0.5), ["weight_orig"]),
    "prune.identity": (lambda layer: prune.identity(layer, "weight"), ["weight_orig"]),
}

wrapped = pytest.mark.parametrize(("wrap", "halves"), WRAPPERS.values(), ids=WRAPPERS)


def module(wrap):
    model = settings.Module()
    wrap(model.body[3])
    return model


def fit(make_trainer, method, model):
    make_trainer(method, max_epochs=2).fit(model, settings.batches())


def check(model, method, names, sparsity=0.9) -> None:
    assert list(method.masks) == names
    assert settings.exact(method.masks, sparsity)
    assert settings.dead_are_zero(model, method.masks)


@wrapped
def test_a_rewritten_weight_is_refused_by_name(make_method, wrap, halves, make_trainer):
    model = module(wrap)
    with pytest.raises(
        SparsityError, match=r"'body\.3\.weight' is already rewritten .*leave the layer out with exclude"
    ):
        fit(make_trainer, make_method(0.9), model)


@wrapped
def test_neither_half_of_a_rewritten_weight_can_be_asked_for(wrap, halves, make_trainer):
    for half in halves:
        with pytest.raises(SparsityError, match=rf"'body\.3\.{half}' is already rewritten"):
            fit(make_trainer, GradualPruning(0.9, include=["head.weight", f"body.3.{half}"]), module(wrap))


@wrapped
def test_a_rewritten_weight_that_is_left_out_is_trained_as_before(make_method, wrap, halves, make_trainer):
    model, method = module(wrap), make_method(0.9, exclude=["body.3.*"])
    before = [parameter.detach().clone() for parameter in model.body[3].parameters()]
    fit(make_trainer, method, model)
    check(model, method, ["body.0.weight", "head.weight"])
    assert not any(torch.equal(*pair) for pair in zip(before, model.body[3].parameters(), strict=True))


@wrapped
def test_its_halves_are_enough_to_leave_a_layer_out(wrap, halves, make_trainer):
    """The bias is not made sparse anyway, so a user should not have to name it."""
    model, method = module(wrap), GradualPruning(0.9, exclude=[f"body.3.{half}" for half in halves])
    fit(make_trainer, method, model)
    check(model, method, ["body.0.weight", "head.weight"])


@wrapped
def test_compress_says_how_to_make_a_rewritten_weight_plain(wrap, halves):
    model, images = module(wrap).eval(), settings.digits().tensors[0]
    before = model(images).detach()
    with pytest.raises(SparsityError, match=r"'model\.body\.3\.weight' is computed from .*: write ") as error:
        compress(model, [Prune(0.5), Code()])
    advice = str(error.value).partition(": write ")[2].partition(", after which")[0]
    exec(advice.replace("model.body.3", "model.body[3]"), {"torch": torch, "model": model})
    assert torch.allclose(model(images), before, atol=1e-6)
    found = compress(model, [Prune(0.5), Code()])
    assert torch.equal(decompress(found.content, model)(images), found.model(images))


def test_a_weight_whose_bias_is_rewritten_is_like_any_other(make_trainer):
    model, method = settings.Module(), GradualPruning(0.9)
    parametrize.register_parametrization(model.body[3], "bias", Doubled())
    prune.random_unstructured(model.head, "bias", amount=0.5)
    fit(make_trainer, method, model)
    check(model, method, ["body.0.weight", "body.3.weight", "head.weight"])


def test_a_weight_that_torchs_prune_made_permanent_is_like_any_other(make_method, make_trainer):
    model, method = settings.Module(), make_method(0.9)
    prune.l1_unstructured(model.head, "weight", amount=0.5)
    prune.remove(model.head, "weight")
    fit(make_trainer, method, model)
    check(model, method, ["body.0.weight", "body.3.weight", "head.weight"])


# Adapters


class ByLayers(nn.Module):
    """A LoRA of two small layers beside a frozen one."""

    def __init__(self, base, rank=4):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


class ByParameters(nn.Module):
    """Likewise of two bare matrices."""

    def __init__(self, base, rank=4):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_a = nn.Parameter(torch.randn(rank, base.in_features) / 8)
        self.lora_b = nn.Parameter(torch.randn(base.out_features, rank) / 8)

    def forward(self, x):
        return self.base(x) + x @ self.lora_a.T @ self.lora_b.T


class Adapted(settings.Module):
    def __init__(self, adapter):
        super().__init__()
        self.body[0], self.body[3] = adapter(self.body[0]), adapter(self.body[3])

    def configure_optimizers(self):
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.1, momentum=0.9)


LAYERS = [f"body.{i}.{part}.weight" for i in (0, 3) for part in ("down", "up")]
MATRICES = [f"body.{i}.lora_{part}" for i in (0, 3) for part in "ab"]


@pytest.mark.filterwarnings(
    "ignore:.*856 of 1,156 trained weights in matrices stay dense:UserWarning"
)  # lora_a, lora_b
@pytest.mark.parametrize(
    ("adapter", "include", "reached"),
    [
        (ByLayers, None, [*LAYERS, "head.weight"]),
        (ByLayers, ["*.down.weight", "*.up.weight"], LAYERS),
        (ByParameters, None, ["head.weight"]),
        (ByParameters, ["*.lora_?"], MATRICES),
    ],
    ids=["layers", "layers by name", "matrices", "matrices by name"],
)
def test_an_adapter_is_sparse_and_its_frozen_base_is_not_touched(make_method, adapter, include, reached, make_trainer):
    model, untouched = Adapted(adapter), settings.Module()
    method = make_method(0.8, include=include)
    fit(make_trainer, method, model)
    check(model, method, reached, 0.8)
    for i in (0, 3):
        assert settings.same_state(model.body[i].base, untouched.body[i])
    others = [p for name, p in model.named_parameters() if name not in reached and p.dim() > 1]
    assert all(bool((parameter != 0).all()) for parameter in others)


def test_bare_matrices_alone_have_to_be_named(make_method, make_trainer):
    model = Adapted(ByParameters)
    model.head.requires_grad_(False)
    with pytest.raises(SparsityError, match=r"no weight to make sparse.*include=.*body\.0\.lora_a"):
        fit(make_trainer, make_method(0.8), model)


def test_a_frozen_base_that_is_named_is_masked_beside_its_dense_adapter(make_trainer):
    model, method = Adapted(ByLayers), GradualPruning(0.8, include=["*.base.weight"])
    fit(make_trainer, method, model)
    check(model, method, ["body.0.base.weight", "body.3.base.weight"], 0.8)
    untouched = settings.Module()
    for i in (0, 3):
        living = method.masks[f"body.{i}.base.weight"]
        assert torch.equal(model.body[i].base.weight[living], untouched.body[i].weight[living])
        assert bool((model.body[i].up.weight != 0).all())


# Quantised layers


@pytest.fixture
def quantization():
    module = pytest.importorskip("torch.ao.quantization")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # says that torch.ao is going
        yield module


class Quantised(LightningModule):
    """Features in eight bits, which cannot be trained, and a head that can."""

    def __init__(self, quantization):
        super().__init__()
        torch.manual_seed(0)
        body = nn.Sequential(nn.Linear(64, 60), nn.ReLU(), nn.Linear(60, 30), nn.ReLU())
        self.body = quantization.quantize_dynamic(body, {nn.Linear}, dtype=torch.qint8)
        self.head = nn.Linear(30, 10)

    def training_step(self, batch, batch_idx):
        with torch.no_grad():
            features = self.body(batch[0])
        return nn.functional.cross_entropy(self.head(features), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_quantised_layers_are_no_weights_to_make_sparse(make_method, quantization, make_trainer):
    model, method = Quantised(quantization), make_method(0.9)
    assert "Dynamic" in repr(model.body[0])
    before = model.body[0].weight().dequantize()
    fit(make_trainer, method, model)
    check(model, method, ["head.weight"])
    assert torch.equal(model.body[0].weight().dequantize(), before)
    model.head = nn.Identity()
    with pytest.raises(SparsityError, match="no weight to make sparse"):
        fit(make_trainer, make_method(0.9), model)


def test_quantisation_aware_layers_see_exact_zeros(make_method, quantization, make_trainer):
    """What they round is still a weight, and they round zero to zero."""

    class Aware(settings.Module):
        def __init__(self):
            super().__init__()
            from torch.ao.nn import qat

            linear = qat.Linear(30, 10, qconfig=quantization.get_default_qat_qconfig())
            linear.load_state_dict(self.head.state_dict(), strict=False)
            self.head = linear

    model, method = Aware(), make_method(0.9)
    fit(make_trainer, method, model)
    check(model, method, ["body.0.weight", "body.3.weight", "head.weight"])
    rounded = model.head.weight_fake_quant(model.head.weight)
    assert bool((rounded[~method.masks["head.weight"]] == 0).all())


# Optimizers


class Wrapped(torch.optim.SGD):
    """As people extend an optimizer: something of their own, and then its step; torch runs the hooks of both."""

    def step(self, closure=None):
        return super().step(closure)


def test_an_optimizer_that_calls_anothers_step_takes_one_step(make_method, make_trainer):
    torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)  # from here on the inner step has hooks too

    class Extended(settings.Module):
        def configure_optimizers(self):
            return Wrapped(self.parameters(), lr=self.lr, momentum=0.9, weight_decay=1e-4)

    runs = []
    for kind in (settings.Module, Extended):
        model, method = kind(), make_method(0.9)
        fit(make_trainer, method, model)
        check(model, method, ["body.0.weight", "body.3.weight", "head.weight"])
        runs.append((model, method))
    (plain, one), (extended, other) = runs
    assert other.engine.clock == 20
    assert other.history == one.history
    assert settings.same_state(extended, plain)


def test_an_inherited_step_counts_once_in_the_step_before_which_the_optimizer_grew():
    torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
    optimizer = Wrapped(model.parameters(), lr=0.1)
    engine = attach(optimizer, model, SparseTraining(0.5))
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    for clock in (1, 2):
        optimizer.step()
        assert engine.clock == clock
