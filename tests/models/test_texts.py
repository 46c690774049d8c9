"""Networks of texts: what padding, order and positions do, against computations of another kind."""

import pytest
import torch
from torch import nn

from lightning_sparse import SparsityError
from lightning_sparse.models import Classifier, LanguageModel, bag_of_words, tiny_gpt, tiny_transformer
from lightning_sparse.models.texts import Block, turned

TEXTS = torch.tensor([[5, 2, 9, 0, 0], [3, 3, 7, 8, 1]])


def padded(texts, more=3):
    return torch.cat([texts, torch.zeros(len(texts), more, dtype=torch.long)], dim=1)


@pytest.mark.parametrize(
    "net",
    [
        bag_of_words(20, 4),
        tiny_transformer(20, 4, length=8, positions="rotary"),
        tiny_transformer(20, 4, length=8),
    ],
)
def test_padding_changes_nothing_and_the_lot_is_no_matter(net):
    net.eval()
    with torch.no_grad():
        alone = torch.cat([net(TEXTS[:1, :3]), net(TEXTS[1:])])
        torch.testing.assert_close(net(TEXTS), alone)
        torch.testing.assert_close(net(padded(TEXTS)), alone)
        assert net(torch.zeros(1, 4, dtype=torch.long)).isfinite().all()  # a text without words


def test_a_bag_knows_no_order_and_a_transformer_does():
    turned_round = TEXTS[1:].flip(1)
    bag = bag_of_words(20, 4)
    torch.testing.assert_close(bag(TEXTS[1:]), bag(turned_round))
    for positions in ("learned", "rotary"):
        net = tiny_transformer(20, 4, length=5, positions=positions)
        assert not torch.allclose(net(TEXTS[1:]), net(turned_round), atol=1e-4)


def test_a_bag_is_the_mean_of_its_vectors():
    bag = bag_of_words(20, 4, dimensions=3, hidden=5)
    mean = bag.words.weight[[5, 2, 9]].mean(dim=0)
    expected = bag.classes.weight @ (bag.hidden.weight @ mean + bag.hidden.bias).relu() + bag.classes.bias
    torch.testing.assert_close(bag(TEXTS)[0], expected)


def test_a_block_is_a_layer_of_torch():
    """Without positions and masks it equals nn.TransformerEncoderLayer with the same weights."""
    block = Block(16, 4, rotary=False, causal=False)
    theirs = nn.TransformerEncoderLayer(16, 4, 64, 0.0, "gelu", batch_first=True, norm_first=True)
    with torch.no_grad():
        attention = theirs.self_attn
        attention.in_proj_weight.copy_(torch.cat([block.queries.weight, block.keys.weight, block.values.weight]))
        attention.in_proj_bias.copy_(torch.cat([block.queries.bias, block.keys.bias, block.values.bias]))
    attention.out_proj.load_state_dict(block.out.state_dict())
    for mine, his in (("up", "linear1"), ("down", "linear2"), ("attention_norm", "norm1"), ("mlp_norm", "norm2")):
        getattr(theirs, his).load_state_dict(getattr(block, mine).state_dict())
    x = torch.randn(3, 6, 16)
    there = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]]).bool()
    torch.testing.assert_close(block(x, there)[there], theirs(x, src_key_padding_mask=~there)[there])


def test_rotary_positions_depend_on_the_distance_alone():
    q, k = torch.randn(8), torch.randn(8)
    products = turned(q.expand(12, 8)) @ turned(k.expand(12, 8)).T
    for distance in range(-11, 12):
        along = products.diagonal(distance)
        torch.testing.assert_close(along, along[:1].expand_as(along))


def test_a_language_model_sees_nothing_of_what_comes():
    net = tiny_gpt(20, length=5).eval()
    other = TEXTS.clone()
    other[:, 3:] = 4
    torch.testing.assert_close(net(TEXTS)[:, :3], net(other)[:, :3])
    assert net.classes.weight is net.words.weight


def test_width_scales_dimensions_in_whole_heads():
    assert tiny_transformer(20, 4, length=5, width=0.5).words.embedding_dim == 32
    assert tiny_transformer(20, 4, length=5, width=0.01).words.embedding_dim == 8  # two a head
    assert bag_of_words(20, 4, width=0.5).hidden.weight.shape == (32, 32)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: tiny_transformer(20, 4, 5, dimensions=60),
            "dimensions=60 is not a multiple .*: write dimensions=64",
        ),
        (lambda: tiny_transformer(20, 4, 5, positions="sine"), "positions='sine'"),
        (lambda: tiny_transformer(20, 1, 5), "classes=1"),
        (lambda: bag_of_words(2, 4), "words=2"),
        (lambda: bag_of_words(20, 4, width=0), "width=0"),
        (lambda: Classifier(bag_of_words(20, 4), mean=None, std=[0.5]), "write both, .* or None for both"),
        (lambda: LanguageModel("net"), "net='net'"),
        (lambda: LanguageModel(tiny_gpt(20, 5), optimizer=3), "optimizer=3 is not a function"),
    ],
)
def test_arguments_out_of_range_are_refused(make, message):
    with pytest.raises(SparsityError, match=message):
        make()
