"""A network whose layers are sparse gives what the dense one gives, whatever it does with them."""

import copy

import pytest
import torch
from torch import nn

from export.sparse_networks import Reads, close, mlp, pruned
from lightning_sparse.export import CSRLinear, sparsify
from lightning_sparse.models import lenet5, lenet_300_100
from networks import Lstm, Tokens, Transformer


class Views(nn.Module):
    """Asks for torch's usual layout after a layer, as attention written by hand does."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(256, 256), nn.Linear(128, 256)

    def forward(self, x):
        return self.b(self.a(x).view(-1, 128))


def gpt2():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_layer=1, n_embd=128, n_head=2, vocab_size=100, bos_token_id=0, eos_token_id=0, use_cache=False
    )
    return transformers.GPT2LMHeadModel(config)


def vit():
    timm = pytest.importorskip("timm")
    return timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32)


NETWORKS = {
    "lenet_300_100": (lambda: lenet_300_100((1, 28, 28), 10), torch.rand(4, 1, 28, 28)),
    "lenet5": (lambda: lenet5((1, 28, 28), 10), torch.rand(4, 1, 28, 28)),
    "one layer": (lambda: nn.Linear(512, 512), torch.randn(4, 512)),
    "no bias": (lambda: mlp(512, 512, 512, bias=False), torch.randn(4, 512)),
    "float64": (lambda: mlp(512, 512, 10).double(), torch.randn(4, 512, dtype=torch.float64)),
    "tokens": (lambda: mlp(256, 256, 10), torch.randn(2, 5, 256)),
    "views": (Views, torch.randn(4, 256)),
    "reads": (Reads, torch.randn(4, 256)),
    "softmax": (lambda: nn.Sequential(mlp(512, 512), nn.Softmax(1)), torch.randn(4, 512)),
    "lstm": (Lstm, torch.rand(4, 64)),
    "transformer": (Transformer, torch.rand(4, 64)),
    "embedding": (Tokens, torch.rand(4, 64)),
    "gpt2": (gpt2, torch.randint(100, (2, 8))),
    "vit": (vit, torch.rand(2, 3, 32, 32)),
    "no linear layer": (lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), torch.rand(2, 1, 8, 8)),
}


def outputs(model, x):
    with torch.no_grad():
        found = model(x)
    if isinstance(found, dict) and not isinstance(found, torch.Tensor):
        found = found.get("logits", found.get("out"))
    return found[0] if isinstance(found, tuple) else found


@pytest.mark.parametrize("batch_size", [1, 128])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_gives_the_same_and_is_left_as_it_was(name, batch_size):
    make, x = NETWORKS[name]
    model = pruned(make()).train()
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    found = sparsify(model, x, batch_size=batch_size, seconds=0.05)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training and not isinstance(module, CSRLinear) for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module.training for module in found.model.modules())
    model.eval()
    for batch in (x, x[:1], x.repeat(3, *[1] * (x.dim() - 1))):
        output, expected = outputs(found.model, batch), outputs(model, batch)
        close(output, expected)
        assert output.is_contiguous()
    chosen = {path for path, m in found.model.named_modules(remove_duplicate=False) if isinstance(m, CSRLinear)}
    assert chosen - {"also"} == {layer.name for layer in found.layers if layer.form == "csr"}
    assert found.speedup >= 1.0
    assert found.noise > 0
    assert found.batch_size == batch_size
    for layer in found.layers:
        assert (layer.form == "dense") == bool(layer.why)
        assert layer.form == "dense" or min(layer.sparse_ms, layer.dense_ms) > 0


def test_a_network_whose_outputs_jump_stays_dense():
    class Jumps(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(512, 512)

        def forward(self, x):
            return (self.body(x) * 1e9).frac()  # the last digits, which rounding decides

    found = sparsify(pruned(Jumps(), 0.05), torch.randn(4, 512), seconds=0.05)
    assert found.layers[0].form == "dense"


def test_a_sparse_network_is_saved_and_loaded_as_a_whole_and_by_its_state(tmp_path):
    model = pruned(mlp(784, 1024, 10))
    found = sparsify(model, torch.rand(8, 784), batch_size=128, seconds=0.1)
    assert found.layers[0].form == "csr"
    x = torch.rand(5, 784)
    torch.save(found.model, tmp_path / "model.pt")
    assert torch.equal(torch.load(tmp_path / "model.pt", weights_only=False)(x), found.model(x))
    other = copy.deepcopy(found.model)
    other[0].values.zero_()
    other.load_state_dict(found.model.state_dict())
    assert torch.equal(other(x), found.model(x))


def test_several_arguments_and_a_trainer_are_no_hindrance():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(512, 512)

        def forward(self, x, scale):
            return self.body(x) * scale

    model = pruned(Two())
    model._trainer = iter(())  # which cannot be copied, like a Trainer's loaders
    x, scale = torch.randn(4, 512), torch.rand(4, 1)
    found = sparsify(model, (x, scale), batch_size=64, seconds=0.05)
    close(found.model(x, scale), model(x, scale))
