"""Passes that begin at a changed weight: equal, bit for bit, to passes over the whole network, and no longer than that."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_sparse.anatomy.isolation import fork_random_states, untouched
from lightning_sparse.anatomy.parameters import sparsifiable
from lightning_sparse.anatomy.replay import replay
from lightning_sparse.models.networks import resnet20


class Shared(nn.Module):
    """One layer is called twice, its weight is read once more by the module itself, and first of all."""

    def __init__(self):
        super().__init__()
        self.before, self.shared, self.after = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        x = self.before(x.flatten(1)[:, :8]) + self.shared.weight.sum()
        x = self.shared(F.relu(x))
        return self.after(self.shared(F.relu_(x)))


class InPlace(nn.Module):
    """Everything that a residual network may write into its results."""

    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b, self.c = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 8), nn.Linear(8, 4)
        self.relu, self.same = nn.ReLU(inplace=True), nn.Identity()

    def forward(self, x):
        x = self.norm(self.a(x.flatten(1)[:, :8]))
        other = self.same(x)
        out = self.b(self.relu(x))
        out += other
        out.data.mul_(2)
        out[:, 0] = 1.0
        return self.c(out)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.into, self.lstm, self.head = nn.Linear(8, 8), nn.LSTM(8, 8, 2, batch_first=True), nn.Linear(8, 4)

    def forward(self, x):
        states, (last, _) = self.lstm(self.into(x[:, 0]))
        return self.head(states.mean(1) + last[-1])


class Attentive(nn.Module):
    """Torch's own encoder, whose attention reads weights of layers that it does not call."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.encoder(x[:, 0]).mean(1))


class Random(nn.Module):
    """Draws at random in eval mode too, within modules and between them, and remembers what it saw last."""

    class Noise(nn.Module):
        def forward(self, x):
            self.last = x + torch.randn_like(x)
            return self.last * 1.0

    def __init__(self):
        super().__init__()
        self.first, self.noise = nn.Linear(8, 8), self.Noise()
        self.second, self.third = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        x = self.second(self.noise(self.first(x.flatten(1)[:, :8])))
        return self.third(F.dropout(x, 0.5, training=True) + self.noise.last)


class Structured(nn.Module):
    """Modules that give mappings and lists, take a mutable object, and hand on a weight as it is."""

    class Parts(nn.Linear):
        def forward(self, x):
            return {"out": super().forward(x), "pair": [x * 1.0, None]}

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.rand(8, 8))

        def forward(self):
            return self.weight

    class Noting(nn.Linear):
        def forward(self, x, notes):
            notes.add(x.mean())
            return super().forward(x)

    def __init__(self):
        super().__init__()
        self.parts, self.whole = self.Parts(8, 8), self.Whole()
        self.noting, self.last = self.Noting(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        notes, found = set(), self.parts(x.flatten(1)[:, :8])
        x = self.noting(found["out"] + found["pair"][0], notes)
        return self.last(x @ self.whole()) + sum(notes)


def vit():
    timm = pytest.importorskip("timm")
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=8, patch_size=4, in_chans=1, embed_dim=24, depth=3, num_classes=4
    )


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # deprecated, and still used
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), torch.jit.script(nn.Linear(8, 8)), nn.Linear(8, 4))


def compiled():
    return nn.Sequential(nn.Flatten(), torch.compile(nn.Linear(64, 8)), nn.Linear(8, 4))


def dropout():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 4))


NETS = {
    "ResNet-20": lambda: resnet20((1, 8, 8), 4),
    "torchvision": lambda: pytest.importorskip("torchvision").models.densenet._densenet(8, (2, 2), 8, None, False),
    **{f"{kind.__name__}": kind for kind in (Shared, InPlace, Recurrent, Attentive, Random, Structured)},
    **{f"{make.__name__}": make for make in (vit, scripted, compiled, dropout)},
}


def everything(model):
    """What must be as before, in the model and outside."""
    tensors = [tensor.clone() for tensor in (*model.parameters(), *model.buffers())]
    return tensors, [(m.training, vars(m).get("forward")) for m in model.modules()], torch.get_rng_state()


@pytest.mark.parametrize("name", NETS)
def test_equal_to_whole_passes(name):
    torch.manual_seed(0)
    net, other = NETS[name](), NETS[name]()
    other.load_state_dict(net.state_dict())
    first = torch.rand(5, *((3, 32, 32) if name == "torchvision" else (1, 8, 8)))
    weights = sparsifiable(net, ["*weight*"])
    weights = {name: weight for name, weight in weights.items() if weight.dim() > 1}
    others, before = dict(other.named_parameters()), everything(net)

    def pass_of(model, batch):
        def forward():
            with fork_random_states(3):
                return model(batch.clone())

        return forward

    differ = 0
    eager = torch.compiler.set_stance("force_eager")
    with untouched(net), untouched(other), torch.no_grad(), eager, replay(net, weights) as passes:
        for batch in (first, 1 - first):  # a second one, so that nothing of the first may stay
            reference = pass_of(other, batch)()
            assert torch.equal(passes.record(pass_of(net, batch)), reference)
            sets = [[weight] for weight in passes.latest_first()]
            assert sorted(weight for (weight,) in sets) == sorted(weights)
            for changed in [*sets, list(weights)]:
                saved = {weight: weights[weight].detach().clone() for weight in changed}
                for weight in changed:
                    weights[weight].data.mul_(torch.rand(weights[weight].shape) > 0.5)
                    others[weight].data.copy_(weights[weight])
                whole = pass_of(other, batch)()
                assert torch.equal(passes.run(changed, pass_of(net, batch)), whole), changed
                differ += not torch.equal(whole, reference)
                for weight, value in saved.items():
                    weights[weight].data.copy_(value)
                    others[weight].data.copy_(value)
            assert torch.equal(passes.run([], pass_of(net, batch)), reference)
    assert differ >= len(weights)  # what is changed does show
    after = everything(net)
    assert all(torch.equal(a, b) for a, b in zip(before[0], after[0], strict=True))
    assert before[1] == after[1]
    assert torch.equal(before[2], after[2])


class Counter(TorchDispatchMode):
    """Counts the kernels of layers that really run."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ in ("convolution", "addmm", "mm", "bmm")
        return func(*args, **kwargs or {})


def test_no_layer_before_the_changed_one_is_computed():
    net, batch = resnet20((1, 8, 8), 4), torch.rand(2, 1, 8, 8)
    weights = sparsifiable(net)
    counts = {}
    with untouched(net), torch.no_grad(), replay(net, weights) as passes:
        with Counter() as whole:
            passes.record(lambda: net(batch))
        for name in passes.latest_first():
            with Counter() as counter:
                passes.run([name], lambda: net(batch))
            counts[name] = counter.count
    assert whole.count == 22
    assert list(counts.values()) == list(range(1, 23))  # the layer itself and all that come later
    assert [*counts][-1] == "0.weight"


def test_a_weight_that_is_never_seen_is_computed_from_the_start():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    stranger = {"stranger": nn.Parameter(torch.rand(2))}
    with untouched(net), torch.no_grad(), replay(net, stranger) as passes:
        passes.record(lambda: net(torch.ones(1, 2)))
        with Counter() as counter:
            passes.run(["stranger"], lambda: net(torch.ones(1, 2)))
    assert counter.count == 2


def test_a_pass_that_goes_another_way_is_computed():
    class Fickle(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers, self.turn = nn.ModuleList(nn.Linear(2, 2) for _ in range(3)), 0

        def forward(self, x):
            self.turn += 1
            order = [0, 1, 2] if self.turn == 1 else [1, 0, 2]
            for i in order:
                x = self.layers[i](x)
            return x

    net = Fickle()
    with untouched(net), torch.no_grad(), replay(net, dict(net.named_parameters())) as passes:
        passes.record(lambda: net(torch.ones(1, 2)))
        found = passes.run(["layers.2.weight"], lambda: net(torch.ones(1, 2)))
    a, b, c = net.layers
    assert torch.equal(found, c(a(b(torch.ones(1, 2)))))


def test_what_is_kept_and_was_written_to_after_all_is_computed_again():
    class Late(nn.Module):
        """Writes into an early result only where the last weight is zero."""

        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            early = self.a(x)
            out = self.b(early)
            if not self.b.weight.any():
                early.zero_()
            return out + early

    net, x = Late(), torch.ones(1, 2)
    with untouched(net), torch.no_grad(), replay(net, dict(net.named_parameters())) as passes:
        first = passes.record(lambda: net(x))
        saved = net.b.weight.clone()
        net.b.weight.zero_()
        assert torch.equal(passes.run(["b.weight"], lambda: net(x)), net.b.bias.expand(1, 2))
        net.b.weight.copy_(saved)
        assert torch.equal(passes.run(["b.weight"], lambda: net(x)), first)


def test_forward_is_put_back_after_an_error():
    net = nn.Sequential(nn.Linear(2, 2))
    own = vars(net[0])["forward"] = lambda x: x * 2

    def fail():
        assert vars(net[0])["forward"] is not own
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), replay(net, {}) as passes:
        passes.record(fail)
    assert vars(net[0])["forward"] is own
    assert "forward" not in vars(net)
