"""Whatever the model is: odd inputs and outputs, wrappers and precisions, and what is refused by name."""

import dataclasses
import threading

import numpy as np
import pytest
import torch
from torch import nn

from export.smaller_network import zero
from lightning_sparse import SparsityError
from lightning_sparse.export import shrink

pytest.importorskip("torch_pruning")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@dataclasses.dataclass
class Answer:
    logits: torch.Tensor


def test_outputs_in_a_dataclass_inputs_by_name_and_whole_numbers():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.last = nn.Embedding(9, 4), nn.Linear(4, 2)

        def forward(self, ids, scale=1.0):
            return Answer(self.last(self.words(ids) * scale))

    net, ids = Words(), torch.randint(9, (2, 5))
    zero(net.words.weight[:, 2])
    small = shrink(net, {"ids": ids, "scale": torch.tensor(2.0)}).model
    assert small.words.embedding_dim == 3
    torch.testing.assert_close(small(ids).logits, net(ids).logits)


def test_the_example_stays_as_it_is_where_the_model_writes_into_it():
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3), nn.Linear(3, 2))
    example = torch.randn(5, 4)
    before = example.clone()
    shrink(net, example)
    assert torch.equal(example, before)


@pytest.mark.parametrize(("dtype", "precision"), [(torch.float64, 1e-12), (torch.bfloat16, 3e-2)])
def test_other_precisions(dtype, precision):
    net = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)).to(dtype)
    zero(net[0].weight[:3])
    example = torch.rand(4, 8, dtype=dtype)
    small = shrink(net, example).model
    assert small[0].out_features == 3
    assert {parameter.dtype for parameter in small.parameters()} == {dtype}
    torch.testing.assert_close(small(example), net(example), rtol=precision, atol=precision)


def test_a_compiled_model_is_shrunk_uncompiled():
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    zero(net[0].weight[0])
    small = shrink(torch.compile(net, backend="eager"), torch.rand(5, 4)).model
    assert isinstance(small, nn.Sequential)
    assert small[0].out_features == 2


def test_a_weight_made_from_other_parameters_stays_and_is_named():
    net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), nn.ReLU(), nn.Linear(3, 2))
    zero(net[2].weight[:, 0])
    assert shrink(net, torch.rand(5, 4)).model[0].out_features == 3
    tied = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.Linear(4, 2))
    tied[1].weight = tied[0].weight
    zero(tied[0].weight[0])
    assert shrink(tied, torch.rand(5, 4)).left["0"].endswith("'1' shares a parameter with another layer")


class Lines(nn.Module):
    def forward(self, x):
        return "a line"


def refused(kind):
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    if kind == "locked":
        net[1].lock = threading.Lock()
    if kind == "in place":
        net.compile(backend="eager")
    if kind == "nan":
        net[2].weight.data.fill_(torch.nan)
    return {
        "part": lambda: nn.Sequential(torch.compile(net[0], backend="eager"), net[2]),
        "scripted": lambda: torch.jit.script(net),
        "meta": lambda: net.to("meta"),
        "lazy": lambda: nn.Sequential(nn.LazyLinear(3)),
        "text": Lines,
        "wrong": lambda: nn.Linear(5, 2),
    }.get(kind, lambda: net)()


REFUSED = {
    "locked": r"'1.lock' of model=Sequential cannot be copied \(TypeError",
    "in place": "a part of Sequential is compiled: give the model as it was",
    "part": "a part of Sequential is compiled",
    "scripted": "is scripted, and cannot be changed",
    "meta": "'0.weight' of Sequential has no values yet",
    "lazy": "'0.weight' of Sequential has no values yet",
    "text": "Lines gives no tensors that could be compared",
    "wrong": r"Linear does not run on example= \(RuntimeError",
    "nan": "the outputs of Sequential on example= are not finite",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_shrunk_is_refused_by_name(kind):
    with pytest.raises(SparsityError, match=REFUSED[kind]):
        shrink(refused(kind), torch.rand(5, 4))


class Noisy(nn.Module):
    def __init__(self, noise):
        super().__init__()
        self.net, self.noise = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), noise

    def forward(self, x):
        return self.net(x) + self.noise(x)


def test_random_outputs_are_compared_at_the_same_random_numbers_or_refused():
    net = Noisy(lambda x: torch.randn(len(x), 1))
    zero(net.net[0].weight[0])
    assert shrink(net, torch.rand(5, 4)).model.net[0].out_features == 2
    net.noise = lambda x: np.random.default_rng().random()
    with pytest.raises(SparsityError, match="Noisy gives other outputs each time"):
        shrink(net, torch.rand(5, 4))
    assert shrink(net.net, torch.rand(5, 4)).model[0].out_features == 2  # "give the part of it that does not"


def test_a_model_that_torch_pruning_cannot_follow_is_refused_with_the_layer():
    shufflenet = pytest.importorskip("torchvision").models.shufflenet_v2_x0_5()
    with pytest.raises(SparsityError, match="could not follow the channels of ShuffleNetV2 behind 'stage"):
        shrink(shufflenet, torch.rand(1, 3, 32, 32))
    small = shrink(shufflenet.conv1, torch.rand(1, 3, 32, 32)).model  # "give a child of the model that it can follow"
    assert small[0].out_channels == 24


def test_what_it_cannot_follow_in_part_stays_in_part():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.gru = nn.Linear(4, 6), nn.Linear(6, 6), nn.GRU(6, 5, batch_first=True)

        def forward(self, x):
            return self.gru(self.second(torch.relu(self.first(x))))[0]

    net = Gated()
    zero(net.first.weight[:4], net.second.weight[:4])
    shrunk = shrink(net, torch.rand(2, 7, 4))
    assert (shrunk.model.first.out_features, shrunk.model.second.out_features) == (2, 6)
    assert "torch-pruning cannot follow what 'second' writes" in shrunk.left["second"]


def test_a_lightning_module_is_copied_without_its_trainer():
    from lightning.pytorch import LightningModule, Trainer

    class Module(LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))

        def forward(self, x):
            return self.net(x)

    module = Module()
    zero(module.net[0].weight[0])
    module.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False)
    module.trainer.lock = threading.Lock()
    small = shrink(module, torch.rand(5, 4)).model
    assert small._trainer is None
    assert small.net[0].out_features == 2
