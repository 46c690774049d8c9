"""What Wanda and SparseGPT are for: trained transformers, of torch and of the transformers library, and no fine-tuning."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import settings
from lightning_sparse import OneShot, attach
from lightning_sparse.statistics import t_interval

ENCODER = ["encoder.*in_proj_weight", "encoder.*out_proj.weight", "encoder.*linear*.weight"]
WAYS = {
    "magnitude": {"criterion": "magnitude", "allocation": "uniform"},
    "wanda": {"criterion": "wanda"},
    "obs": {"reconstruct": "obs"},
}


class Rows(nn.Module):
    """Reads the eight rows of a digit as eight tokens."""

    def __init__(self):
        super().__init__()
        self.embed, self.place = nn.Linear(8, 32), nn.Parameter(0.1 * torch.randn(8, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 10)

    def forward(self, x):
        return self.head(self.norm(self.encoder(self.embed(x.view(-1, 8, 8)) + self.place)).mean(1))


def loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def trained(seed):
    """A network, trained on 512 digits; these in batches, and 128 others."""
    torch.manual_seed(seed)
    order = torch.randperm(640, generator=torch.Generator().manual_seed(seed))
    images, labels = (tensor[order] for tensor in settings.digits().tensors)
    batches = list(zip(images[:512].split(64), labels[:512].split(64), strict=True))
    net = Rows()
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    for _ in range(15):
        for batch in batches:
            optimizer.zero_grad()
            loss(net, batch).backward()
            optimizer.step()
    return net.eval(), batches, (images[512:], labels[512:])


def pruned(net, batches, sparsity, **way):
    net = copy.deepcopy(net)
    method = OneShot(sparsity, at=0, score_batches=len(batches), include=ENCODER, **way)
    engine = attach(torch.optim.SGD(net.parameters(), 0.1), net, method, batches=batches, loss_fn=loss)
    engine.detach()
    assert settings.exact(engine.masks, sparsity)
    return net


def layer_error(net, other, images):
    """How far the feed-forward layers give something else for the dense network's inputs: the mean share of the energy."""
    shares = []

    def compare(name, layer, inputs, output):
        found = F.linear(inputs[0], other.get_submodule(name).weight) - F.linear(inputs[0], layer.weight)
        shares.append(float(found.square().sum() / F.linear(inputs[0], layer.weight).square().sum()))

    names = [f"encoder.layers.{at}.linear{which}" for at in (0, 1) for which in (1, 2)]
    hooks = [net.get_submodule(name).register_forward_hook(partial(compare, name)) for name in names]
    with torch.no_grad():
        net(images)
    for hook in hooks:
        hook.remove()
    return sum(shares) / len(shares)


def test_five_trained_encoders_lose_least_by_sparsegpt_and_more_by_magnitude_than_by_wanda():
    error, lost = ({name: [0.0] * 5 for name in WAYS} for _ in range(2))
    for seed in range(5):
        net, batches, (images, labels) = trained(seed)
        with torch.no_grad():
            right = float((net(images).argmax(1) == labels).float().mean())
            assert right > 0.85
            for name, way in WAYS.items():
                for sparsity in (0.5, 0.6, 0.7):
                    sparse = pruned(net, batches, sparsity, **way)
                    error[name][seed] += layer_error(net, sparse, images) / 3
                    lost[name][seed] += (right - float((sparse(images).argmax(1) == labels).float().mean())) / 3
    for better, worse in (("wanda", "magnitude"), ("obs", "wanda"), ("obs", "magnitude")):
        gap = [one - other for one, other in zip(error[worse], error[better], strict=True)]
        assert t_interval(gap)[1] > 0.0, (better, worse, gap)
        gap = [one - other for one, other in zip(lost[worse], lost[better], strict=True)]
        assert sum(gap) > 0.0, (better, worse, gap)
        assert (better, worse) != ("obs", "magnitude") or t_interval(gap)[1] > 0.0, gap


def tiny(kind):
    """A small model of the transformers library, made from its configuration, and six batches of tokens."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    shared = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    shared |= {"vocab_size": 50, "max_position_embeddings": 16}
    configs = {
        "gpt2": lambda: transformers.GPT2Config(vocab_size=50, n_positions=16, n_embd=32, n_layer=2, n_head=2),
        "bert": lambda: transformers.BertConfig(**shared),
        "llama": lambda: transformers.LlamaConfig(**shared),
    }
    heads = {"gpt2": "GPT2LMHeadModel", "bert": "BertForMaskedLM", "llama": "LlamaForCausalLM"}
    model = getattr(transformers, heads[kind])(configs[kind]()).eval()
    return model, list(torch.randint(0, 50, (6, 8, 16)))


def of_tokens(model, tokens):
    return model(input_ids=tokens, labels=tokens).loss


@pytest.mark.parametrize("granularity", ["weights", "2:4"])
@pytest.mark.parametrize("kind", ["gpt2", "bert", "llama"])
def test_models_of_transformers_offline(kind, granularity):
    model, batches = tiny(kind)
    heads = {"gpt2": None, "bert": ["cls.*"], "llama": ["lm_head.*"]}
    far = {}
    for name, way in WAYS.items():
        sparse = copy.deepcopy(model)
        method = OneShot(0.5, at=0, score_batches=6, granularity=granularity, exclude=heads[kind], **way)
        engine = attach(torch.optim.SGD(sparse.parameters(), 0.1), sparse, method, batches=batches, loss_fn=of_tokens)
        assert engine.sparsity == 0.5
        assert len(engine.masks) == {"gpt2": 8, "bert": 12, "llama": 14}[kind]
        with torch.no_grad():
            far[name] = float((sparse(batches[0]).logits - model(batches[0]).logits).square().mean())
    assert far["obs"] < min(far["wanda"], far["magnitude"])
