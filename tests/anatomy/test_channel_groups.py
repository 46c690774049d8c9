"""Which channels go together, by hand, and by torch-pruning's own word."""

import pytest
import torch
from torch import nn
from torch.nn.functional import one_hot
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import spectral_norm

from lightning_sparse import SparsityError
from lightning_sparse.anatomy.channel_groups import channel_groups
from lightning_sparse.models import resnet20

pytest.importorskip("torch_pruning")


class Block(nn.Module):
    """As a function, with layers."""

    def __init__(self, run, **layers):
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.run(self, x)


def members(group):
    return {(member.name, member.role): member.channels.tolist() for member in group.members}


def test_a_sum_ties_what_writes_it_and_all_that_read_it():
    net = Block(
        lambda s, x: s.c(s.a(x) + s.b(x)) + s.d(s.a(x)).sum(),
        a=nn.Linear(3, 4),
        b=nn.Linear(3, 4),
        c=nn.Linear(4, 2),
        d=nn.Linear(4, 1),
    )
    group = next(group for group in channel_groups(net, torch.rand(2, 3)) if not group.obstacle)
    every = [0, 1, 2, 3]
    assert members(group) == {key: every for key in [("a", "writes"), ("b", "writes"), ("c", "reads"), ("d", "reads")]}
    assert group.size == 4


def test_a_concatenation_shifts_the_channels_of_the_second():
    net = Block(
        lambda s, x: s.c(s.n(torch.cat([s.a(x), s.b(x)], 1))),
        a=nn.Conv2d(1, 2, 1),
        b=nn.Conv2d(1, 3, 1),
        n=nn.BatchNorm2d(5),
        c=nn.Conv2d(5, 1, 1),
    )
    first, second = [members(group) for group in channel_groups(net, torch.rand(1, 1, 4, 4)) if not group.obstacle]
    assert first == {("a", "writes"): [0, 1], ("n", "each"): [0, 1], ("c", "reads"): [0, 1]}
    assert second == {("b", "writes"): [0, 1, 2], ("n", "each"): [2, 3, 4], ("c", "reads"): [2, 3, 4]}


def test_a_flattened_channel_is_many_inputs():
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(18, 2))
    reader = channel_groups(net, torch.rand(1, 1, 3, 3))[0].having("reads")[0]
    assert reader.slots.tolist() == [0] * 9 + [1] * 9
    assert reader.channels.tolist() == list(range(18))


def test_a_depthwise_convolution_works_on_each_channel():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, groups=4), nn.PReLU(4), nn.PReLU(), nn.Conv2d(4, 2, 1))
    roles = {name: role for name, role in members(channel_groups(net, torch.rand(1, 3, 4, 4))[0])}
    assert roles == {"0": "writes", "1": "each", "2": "each", "4": "reads"}  # one slope for all has no channels


def test_a_resnet20_has_nine_groups_of_one_writer_and_three_of_four():
    groups = [group for group in channel_groups(resnet20((3, 8, 8), 10), torch.rand(1, 3, 8, 8)) if not group.obstacle]
    assert sorted(len(group.having("writes")) for group in groups) == [1] * 9 + [4] * 3


LINEAR, IMAGE = torch.rand(2, 4), torch.rand(1, 4, 3, 3)


@pytest.mark.parametrize(
    ("layers", "example", "obstacle"),
    [
        ([nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2)], LINEAR, "'1' (LayerNorm) mixes its channels"),
        ([nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4), nn.Conv2d(4, 2, 1)], IMAGE, "'1' (GroupNorm) mixes its channels"),
        ([nn.Linear(4, 8), nn.GLU(), nn.Linear(4, 2)], LINEAR, "does not know how '2' takes its channels"),
        ([nn.Conv2d(4, 8, 1), nn.PixelShuffle(2), nn.Conv2d(2, 2, 1)], IMAGE, "not know how '2' takes its channels"),
        ([spectral_norm(nn.Linear(4, 4)), nn.Linear(4, 2)], LINEAR, "the weight of '0' is made from other parameters"),
        ([prune.identity(nn.Linear(4, 4), "weight"), nn.Linear(4, 2)], LINEAR, "the weight of '0' is made from other"),
        ([nn.Linear(4, 2)], LINEAR, "nothing in the network reads it: it is an output"),
    ],
)
def test_what_stands_in_the_way_is_named(layers, example, obstacle):
    assert obstacle in channel_groups(nn.Sequential(*layers), example)[0].obstacle


def test_what_cannot_be_followed_is_a_group_with_an_obstacle():
    net = Block(lambda s, x: s.gru(s.b(s.a(x)))[0], a=nn.Linear(4, 6), b=nn.Linear(6, 6), gru=nn.GRU(6, 5))
    first, second = channel_groups(net, torch.rand(2, 3, 4))
    assert (first.obstacle, members(first)) == ("", {("a", "writes"): [*range(6)], ("b", "reads"): [*range(6)]})
    assert second.obstacle.startswith("torch-pruning cannot follow what 'b' writes")


def test_a_search_in_circles_ends():
    transformers = pytest.importorskip("transformers")
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 1}
    config = transformers.LlamaConfig(vocab_size=20, hidden_size=16, intermediate_size=32, **heads)
    groups = channel_groups(transformers.LlamaForCausalLM(config), {"input_ids": torch.randint(20, (1, 5))})
    told = {group.members[0].name.rpartition(".")[2]: group.obstacle for group in groups}
    assert told["q_proj"].endswith("(RecursionError: it goes in circles)")
    assert "" in told.values()


def test_the_model_is_as_it_was_also_where_it_fails():
    net = Block(lambda s, x: s.a(one_hot(x, 4).float()), a=nn.Linear(4, 2)).train()
    net.a.weight.requires_grad_(False)
    for example, fails in [(torch.arange(3), False), (torch.rand(3), True)]:
        if fails:
            with pytest.raises(SparsityError, match="could not follow the channels of Block"):
                channel_groups(net, example)
        else:
            channel_groups(net, example)
        assert [module.training for module in net.modules()] == [True, True]
        assert [parameter.requires_grad for parameter in net.parameters()] == [False, True]
        assert not net.a._forward_hooks
