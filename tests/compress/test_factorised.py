"""Networks whose layers are factorised: what becomes of each layer, at which ranks, and that a decoder can follow."""

import copy
import json

import pytest
import tltorch
import torch
from sklearn.datasets import load_digits
from torch import nn

from lightning_sparse import SparsityError, sparsifiable
from lightning_sparse.compress.factorisation.kinds import KINDS
from lightning_sparse.compress.factorised import factorise_as, factorise_layers
from lightning_sparse.compress.factors import Factors
from lightning_sparse.compress.network_code import decode_network, encode_network
from lightning_sparse.compress.state import numbers_of


def digits():
    found = load_digits()
    return torch.tensor(found.images, dtype=torch.float32)[:, None] / 16, torch.tensor(found.target)


def convolutional():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding="same"),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=(1, 2), padding=(1, 2), dilation=(1, 2), padding_mode="circular"),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 32, 1, bias=False),
        nn.Flatten(),
        nn.Linear(1024, 48),
        nn.ReLU(),
        nn.Linear(48, 10),
    )


def perceptron():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )


def train(net, epochs, optimizer=None):
    images, labels = digits()
    optimizer = optimizer or torch.optim.Adam(net.parameters(), 3e-3)
    for epoch in range(epochs):
        order = torch.randperm(1500, generator=torch.Generator().manual_seed(epoch))
        for some in order.split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images[some]), labels[some]).backward()
            optimizer.step()
    return net.eval()


def accuracy(net):
    images, labels = digits()
    with torch.no_grad():
        return (net(images[1500:]).argmax(1) == labels[1500:]).float().mean().item()


@pytest.fixture(scope="module")
def trained():
    return train(convolutional(), 4)


def dense_numbers(net, kind):
    """Of the layers that can be factorised."""
    layers = [
        m for m in net.modules() if isinstance(m, nn.Linear | (nn.Conv2d if kind != "tensor_train" else nn.Linear))
    ]
    return sum(layer.weight.numel() for layer in layers)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.1, 0.4])
def test_all_layers_together_take_at_most_the_share(trained, kind, share):
    net = copy.deepcopy(trained)
    factors, left_alone = factorise_layers(net, share, kind)
    kept = [name for name, why in left_alone.items() if "numbers, and it has" in why]
    counted = [name for name in sparsifiable(net) if any(name.startswith(f.name + ".") for f in factors)]
    numbers = sum(sparsifiable(net)[name].numel() for name in counted)
    numbers += sum(trained.get_submodule(name).weight.numel() for name in kept)
    assert numbers <= share * dense_numbers(trained, kind)
    assert numbers > 0.8 * share * dense_numbers(trained, kind)
    assert {f.name for f in factors} | set(left_alone) == {"0", "2", "5", "7", "9"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_share_keeps_what_was_learned_and_a_small_one_does_not(trained, kind):
    images, _ = digits()
    with torch.no_grad():
        truth, errors = trained(images), []
        for share in (0.9, 0.5, 0.1):
            net = copy.deepcopy(trained)
            factorise_layers(net, share, kind)
            errors.append(float((net(images) - truth).norm() / truth.norm()))
    assert max(errors[:2]) < errors[2]
    assert kind == "cp" or errors == sorted(errors)  # alternating least squares stop where they stop
    assert errors[0] < (0.3 if kind == "cp" else 0.25)


@pytest.mark.parametrize("kind", KINDS)
def test_a_decoder_follows_to_the_last_bit(trained, kind):
    images, _ = digits()
    net, other = copy.deepcopy(trained), convolutional().eval()
    factors, _ = factorise_layers(net, 0.3, kind)
    told = [Factors(*json.loads(json.dumps(each))) for each in factors]
    assert told == [Factors(e.name, e.place, e.kind, list(e.ranks), [list(m) for m in e.modes]) for e in factors]
    before = torch.get_rng_state()
    factorise_as(other, [f._replace(ranks=tuple(f.ranks), modes=tuple(map(tuple, f.modes))) for f in told])
    assert torch.equal(before, torch.get_rng_state())
    theirs, ours = other.state_dict(), net.state_dict()
    assert {n: t.shape for n, t in theirs.items()} == {n: t.shape for n, t in ours.items()}
    other.load_state_dict(ours)
    with torch.no_grad():
        assert torch.equal(net(images), other(images))
        assert torch.equal(copy.deepcopy(net)(images), net(images))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read_again(trained, kind):
    class Numbers:
        def __init__(self, numbers):
            self.left = list(numbers)

        def number(self):
            return self.left.pop(0)

    for each in factorise_layers(copy.deepcopy(trained), 0.3, kind)[0]:
        reader = Numbers(each.to_numbers())
        assert Factors.from_numbers(reader, trained) == each
        assert not reader.left
        assert each.numbers() == len(each.to_numbers())


def test_one_rank_for_all_and_why_others_stay():
    net = perceptron()
    weight = net[1].weight.detach().clone()
    bias = net[3].bias
    factors, left_alone = factorise_layers(net, None, rank=20)
    assert [(f.name, f.place, f.ranks) for f in factors] == [("1", 0, (20,)), ("3", 1, (20,))]
    assert left_alone == {"5": "rank 10 would take 1100 numbers, and it has 1000"}
    assert net[3][1].bias is bias
    left, values, right = torch.linalg.svd(weight)
    by_hand = (left[:, :20] * values[:20]) @ right[:20]
    assert torch.allclose(net[1][1].weight @ net[1][0].weight, by_hand, atol=1e-5)


def test_what_cannot_be_replaced_stays_and_says_why():
    class Own(nn.Linear):
        pass

    torch.manual_seed(0)
    net = nn.ModuleDict(
        {
            "grouped": nn.Conv2d(8, 8, 3, groups=8),
            "transposed": nn.ConvTranspose2d(8, 8, 3),
            "own": Own(32, 32),
            "tied": nn.Linear(32, 40),
            "embedding": nn.Embedding(40, 32),
            "normed": nn.utils.parametrizations.weight_norm(nn.Linear(32, 32)),
            "hooked": nn.Linear(32, 32),
            "encoder": nn.TransformerEncoderLayer(32, 2, 64, batch_first=True),
            "nan": nn.Linear(32, 32),
            "free": nn.Linear(32, 32),
        }
    )
    net["tied"].weight = net["embedding"].weight
    net["hooked"].register_forward_hook(lambda *_: None)
    net["nan"].weight.data[0, 0] = torch.nan
    factors, left_alone = factorise_layers(net, None, rank=4)
    assert [f.name for f in factors] == ["free"]
    said = {
        "grouped": "in 8 groups",
        "transposed": "ConvTranspose2d is none of",
        "own": "Own is none of",
        "tied": "tied",
        "normed": "none of",
        "hooked": "hooks",
        "encoder.self_attn.out_proj": "NonDynamicallyQuantizableLinear is none of",
        "encoder.linear1": "read by nn.TransformerEncoderLayer",
        "encoder.linear2": "read by nn.TransformerEncoderLayer",
        "nan": "NaN",
    }
    assert left_alone.keys() == said.keys()
    for name, part in said.items():
        assert part in left_alone[name]
    assert net["encoder"].eval()(torch.rand(2, 3, 32)).shape == (2, 3, 32)


def test_a_tensor_train_leaves_convolutions_and_primes_alone():
    net = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Linear(64, 7), nn.Linear(64, 48))
    factors, left_alone = factorise_layers(net, None, "tensor_train", rank=3)
    assert [f.name for f in factors] == ["2"]
    assert factors[0].modes == ((3, 4, 4), (4, 4, 4))
    assert left_alone == {
        "0": "a tensor train is made of Linear layers, and it is a Conv2d",
        "1": "a tensor train splits outputs and inputs into factors, and 7 has none",
    }


def test_a_layer_at_two_places_stays_one():
    layer = nn.Linear(32, 32)
    net = nn.Sequential(layer, nn.ReLU(), layer)
    factors, _ = factorise_layers(net, 0.5)
    assert len(factors) == 1
    assert net[0] is net[2]
    assert isinstance(net[0], nn.Sequential)


def test_include_and_exclude_choose():
    factors, left_alone = factorise_layers(perceptron(), None, rank=4, include=["1.*", "3.*"], exclude=["3.weight"])
    assert [f.name for f in factors] == ["1"]
    assert not left_alone


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_types_frozen_weights_and_modes_stay(kind, dtype):
    net = convolutional().to(dtype).eval()
    net[7].weight.requires_grad_(False)
    factorise_layers(net, 0.3, kind)
    assert all(p.dtype == dtype for p in net.parameters())
    assert not any(m.training for m in net.modules())
    frozen = {n for n, p in net.named_parameters() if n.startswith("7.") and not n.endswith("bias")}
    assert frozen == {n for n, p in net.named_parameters() if not p.requires_grad}


def test_what_cannot_be_is_refused_before_anything_is_changed():
    net = perceptron()
    before = str(net)
    for arguments, message in [
        # 364 + 400 + 110 of 19200 + 30000 + 1000
        ((0.001,), r"share=0.001 is less than ranks of 1 take: the smallest share is 0.01741; write share=0.018"),
        ((0,), "share=0"),
        ((1.0,), "share=1.0"),
        ((None,), "share=None and rank=None: write one of them"),
        ((0.5, "qr"), "kind='qr'"),
    ]:
        with pytest.raises(SparsityError, match=message):
            factorise_layers(net, *arguments)
    with pytest.raises(
        SparsityError, match="rank=80 makes no layer smaller: the largest rank that does is 74; write rank=74"
    ):
        factorise_layers(net, None, rank=80)
    assert len(factorise_layers(copy.deepcopy(net), None, rank=74)[0]) == 1
    assert factorise_layers(copy.deepcopy(net), 0.018)[0]
    with pytest.raises(SparsityError, match=r"share=0\.5 and rank=3"):
        factorise_layers(net, 0.5, rank=3)
    with pytest.raises(SparsityError, match=r"can factorise no layer of Sequential .* write another kind"):
        factorise_layers(nn.Sequential(nn.Conv2d(4, 8, 3)), 0.5, "tensor_train")
    with pytest.raises(SparsityError, match="whole model"):
        factorise_layers(nn.Linear(30, 30), 0.5)
    with pytest.raises(SparsityError, match="leave them dense"):
        factorise_layers(nn.Sequential(nn.Linear(2, 2)), 0.5)
    assert str(net) == before


@pytest.mark.parametrize(
    "wrong",
    [
        Factors("9", 0, "svd", (4,)),
        Factors("1", 0, "svd", (4000,)),
        Factors("1", 0, "svd", (0,)),
        Factors("1", 0, "svd", (4, 4)),
        Factors("1", 0, "cp", (4,)),
        Factors("1", 0, "other", (4,)),
        Factors("1", 0, "tensor_train", (4,), ((2, 150), (8, 9))),
        Factors("1", 0, "tensor_train", (4, 4), ((2, 150), (8, 8))),
        Factors("1", 0, "tensor_train", (4,)),
    ],
)
def test_factors_of_another_network_are_refused(wrong):
    net = perceptron()
    before = str(net)
    with pytest.raises(SparsityError, match="give the dense architecture"):
        factorise_as(net, [Factors("3", 1, "svd", (4,)), wrong])
    assert str(net) == before


@pytest.mark.parametrize("kind", KINDS)
def test_fresh_factors_multiply_to_the_spread_of_the_weight(kind):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(32, 64, 5), nn.Flatten(), nn.Linear(1000, 600))
    spreads = [net[0].weight.std().item(), net[2].weight.std().item()]
    factorise_layers(net, None, kind, rank=8, fresh=True)
    found = [net[2].weight.to_matrix().std() if kind == "tensor_train" else (net[2][1].weight @ net[2][0].weight).std()]
    wanted = [spreads[1]]
    if kind != "tensor_train":
        impulse = torch.zeros(32, 32, 9, 9)
        impulse[range(32), range(32), 4, 4] = 1
        for part in net[0]:
            part.bias = None
        with torch.no_grad():
            found.append(net[0](impulse).std())
        wanted.append(spreads[0])
    for is_, was in zip(found, wanted, strict=True):
        assert 0.6 * was < is_.item() < 1.6 * was


@pytest.mark.parametrize("rank", [4, 8])
def test_a_tensor_train_learns_from_the_start_and_tltorchs_own_does_not(rank):
    """By SGD; Adam, whose steps do not shrink with the gradients, gets tltorch's off the ground too."""
    net = perceptron()
    factors, left_alone = factorise_layers(net, None, "tensor_train", rank=rank, fresh=True)
    assert len(factors) == 3
    assert not left_alone
    theirs = copy.deepcopy(net)
    torch.manual_seed(0)
    for module in theirs.modules():
        if isinstance(module, tltorch.FactorizedLinear):
            module.reset_parameters()
    with torch.no_grad():
        spreads = [[each[at].weight.to_matrix().std().item() for at in (1, 3)] for each in (net, theirs)]
    assert all(ours > 5 * other for ours, other in zip(*spreads, strict=True))
    assert accuracy(train(net, 8, torch.optim.SGD(net.parameters(), 0.1, momentum=0.9))) > 0.8
    assert accuracy(train(theirs, 8, torch.optim.SGD(theirs.parameters(), 0.1, momentum=0.9))) < 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_is_decoded_from_its_bytes_and_the_dense_architecture(trained, kind):
    images, _ = digits()
    net = copy.deepcopy(trained)
    factors, _ = factorise_layers(net, 0.3, kind)
    for parameter in net.parameters():
        parameter.data = parameter.data.half().float()
    for buffer in net.buffers():
        buffer.copy_(buffer.half())
    alive = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in sparsifiable(net).items()}
    content, account = encode_network(net, alive, {}, factors, numbers=numbers_of(trained))
    assert account.ideal["structure"] == 16 * sum(each.numbers() for each in factors)
    with torch.no_grad():
        assert torch.equal(decode_network(content, convolutional().eval())(images), net(images))
