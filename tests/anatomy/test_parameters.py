import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from lightning_sparse.anatomy.parameters import sparsifiable
from lightning_sparse.errors import SparsityError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.rnn = nn.LSTM(6, 4)
        self.conv = nn.ConvTranspose1d(4, 3, 3)
        self.norm = nn.LayerNorm(3)
        self.head = nn.Linear(6, 11)
        self.head.weight = self.embedding.weight  # tied
        self.frozen = nn.Linear(3, 3).requires_grad_(False)


def test_default_is_trainable_linear_and_conv_weights_tied_ones_once():
    # The tied weight goes by the name under which the model lists it, which is the embedding's.
    assert list(sparsifiable(Net(), exclude=["embedding*"])) == ["conv.weight"]
    assert list(sparsifiable(Net().conv)) == ["weight"]


def test_tied_weights_are_reached_by_include_and_come_once():
    assert list(sparsifiable(Net(), include=["embedding.*", "conv.weight"])) == ["embedding.weight", "conv.weight"]


def test_include_reaches_recurrent_weights():
    assert list(sparsifiable(Net(), include=["*.weight_hh*", "*.weight_ih*"])) == [
        "rnn.weight_ih_l0",
        "rnn.weight_hh_l0",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"include": ["hed.*"]}, "include pattern 'hed.\\*' matches no parameter: did you mean"),
        ({"exclude": ["nothing"]}, "exclude pattern 'nothing' matches no parameter"),
        ({"include": "head.*"}, "write include=.'head"),
        ({"exclude": ["*"]}, "no weight to make sparse"),
    ],
)
def test_patterns_that_cannot_be_meant_are_refused(arguments, message):
    with pytest.raises(SparsityError, match=message):
        sparsifiable(Net(), **arguments)


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda layer: nn.utils.parametrizations.weight_norm(layer),
        lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
        lambda layer: nn.utils.parametrizations.orthogonal(layer),
    ],
)
def test_weights_that_something_else_rewrites_are_refused_by_name(rewrite):
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    rewrite(net[1])
    with pytest.raises(SparsityError, match=r"'1.weight' is already rewritten"):
        sparsifiable(net)
    assert list(sparsifiable(net, exclude=["1.*"])) == ["0.weight"]
    with pytest.raises(SparsityError, match="is already rewritten"):
        sparsifiable(net, include=["1.*orig*"])


def test_a_lazy_layer_is_refused_with_advice():
    with pytest.raises(SparsityError, match="run one batch"):
        sparsifiable(nn.Sequential(nn.LazyLinear(3)))


def test_integer_weights_are_refused():
    net = nn.Module()
    net.weight = nn.Parameter(torch.zeros(3, dtype=torch.int8), requires_grad=False)
    with pytest.raises(SparsityError, match="int8"):
        sparsifiable(net, include=["weight"])


def test_a_pattern_may_name_any_name_of_a_tied_weight():
    assert list(sparsifiable(Net(), include=["head.weight"])) == ["embedding.weight"]
    assert list(
        sparsifiable(Net(), include=["embedding.weight", "head.weight", "conv.weight"], exclude=["head.*"])
    ) == ["conv.weight"]
    assert list(sparsifiable(Net(), exclude=["head.*"])) == ["conv.weight"]


def test_the_tied_head_of_a_language_model_is_its_embedding():
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        num_hidden_layers=1, hidden_size=8, num_attention_heads=2, intermediate_size=8, vocab_size=11
    )
    config.tie_word_embeddings = True
    net = transformers.LlamaForCausalLM(config)
    assert list(sparsifiable(net, include=["lm_head.weight"])) == ["model.embed_tokens.weight"]
    assert "model.embed_tokens.weight" not in sparsifiable(
        net, include=["*_proj.weight", "model.embed*"], exclude=["lm_*"]
    )
    assert list(sparsifiable(net, exclude=["lm_head.*"])) == list(sparsifiable(net))
    with pytest.raises(SparsityError, match=r"did you mean 'lm_head\.weight'"):
        sparsifiable(net, include=["lm_heat.weight"])
