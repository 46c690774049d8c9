import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from lightning_sparse.anatomy.flops import LayerFlops, TrainingFlops, batch_elements, layer_flops
from lightning_sparse.anatomy.layer_calls import CallRecorder
from lightning_sparse.models.networks import lenet_300_100, resnet20, small_cnn


def global_hooks():
    kinds = [kind for name, kind in vars(torch.nn.modules.module).items() if name.startswith("_global")]
    return [hook for kind in kinds if isinstance(kind, dict) for hook in kind]


def forward(net, *inputs):
    with CallRecorder(net) as recorder:
        net(*inputs)
    found = {}
    for call in recorder.calls:
        found[call.name] = found.get(call.name, 0) + call.flops
    return found


def test_a_small_network_by_hand():
    found = forward(small_cnn((1, 8, 8), 10), torch.rand(3, 1, 8, 8))
    assert found == {
        "0.weight": 2 * (32 * 1 * 9) * 64 * 3,  # weights, positions of an 8x8 map, images
        "3.weight": 2 * (64 * 32 * 9) * 16 * 3,  # 4x4 after one pooling
        "7.weight": 2 * (256 * 128) * 3,  # 2x2 maps of 64 channels
        "9.weight": 2 * (128 * 10) * 3,
    }


NETS = {
    "small_cnn": lambda: (small_cnn((1, 8, 8), 10), torch.rand(3, 1, 8, 8)),
    "lenet": lambda: (lenet_300_100((1, 8, 8), 10), torch.rand(3, 1, 8, 8)),
    "resnet20": lambda: pytest.importorskip("torchvision") and (resnet20((3, 8, 8), 10), torch.rand(2, 3, 8, 8)),
    "strided, dilated": lambda: (nn.Conv2d(3, 8, (3, 5), stride=2, dilation=2, padding=3), torch.rand(2, 3, 17, 19)),
    "grouped": lambda: (nn.Conv2d(8, 12, 3, groups=4), torch.rand(2, 8, 9, 9)),
    "depthwise": lambda: (nn.Conv1d(8, 8, 3, groups=8), torch.rand(2, 8, 9)),
    "transposed": lambda: (nn.ConvTranspose2d(6, 4, 3, stride=2, groups=2), torch.rand(2, 6, 5, 5)),
    "volumes": lambda: (nn.Conv3d(2, 3, 2), torch.rand(2, 2, 5, 4, 3)),
    "tokens": lambda: (nn.Linear(16, 8), torch.rand(2, 5, 7, 16)),
    "no batch": lambda: (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(0), nn.Linear(72, 3)), torch.rand(1, 8, 8)),
    "lazy": lambda: (nn.Sequential(nn.Flatten(), nn.LazyLinear(5)), torch.rand(2, 3, 4)),
    "shared": lambda: (nn.Sequential(*[nn.Linear(6, 6)] * 3), torch.rand(2, 6)),
}


@pytest.mark.parametrize("name", NETS)
def test_a_forward_pass_costs_what_torch_counts(name):
    net, inputs = NETS[name]()
    found = forward(net, inputs)
    with FlopCounterMode(display=False) as counter:
        net(inputs)
    assert sum(found.values()) == counter.get_total_flops() > 0
    assert set(found) <= {name for name, _ in net.named_parameters()}


def test_an_input_given_by_keyword_costs_the_same():
    for net in (nn.Linear(6, 4), nn.Conv2d(2, 3, 2), nn.ConvTranspose2d(2, 3, 2, stride=2)):
        data = torch.rand(5, 6) if isinstance(net, nn.Linear) else torch.rand(5, 2, 4, 4)
        with CallRecorder(net) as recorder:
            net(data)
            net(input=data)
        assert recorder.calls[0].flops == recorder.calls[1].flops > 0


def test_recurrent_and_attention_layers_by_hand():
    lstm = nn.LSTM(8, 12, num_layers=2, batch_first=True, bidirectional=True)
    found = forward(lstm, torch.rand(3, 5, 8))
    assert found == {name: 2 * weight.numel() * 15 for name, weight in lstm.named_parameters() if weight.dim() == 2}
    packed = nn.utils.rnn.pack_padded_sequence(torch.rand(3, 5, 8), torch.tensor([5, 3, 1]), batch_first=True)
    assert forward(lstm, packed)["weight_hh_l0"] == 2 * 48 * 12 * 9
    encoder = nn.TransformerEncoderLayer(16, nhead=2, dim_feedforward=32, batch_first=True)
    assert forward(encoder, torch.rand(2, 5, 16)) == {
        "self_attn.in_proj_weight": 2 * 48 * 16 * 10,
        "self_attn.out_proj.weight": 2 * 16 * 16 * 10,
        "linear1.weight": 2 * 16 * 32 * 10,
        "linear2.weight": 2 * 32 * 16 * 10,
    }


def test_a_backward_pass_costs_two_forward_passes_where_there_is_one():
    net, teacher = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, 3)), nn.Linear(6, 3)
    net[1].weight.requires_grad_(False)
    both = nn.ModuleDict({"net": net, "teacher": teacher})
    data = torch.rand(2, 6)
    with CallRecorder(both) as recorder:
        with torch.no_grad():
            target = teacher(data)
        (net(data) - target).square().sum().backward()
    assert layer_flops(recorder.calls) == {
        "net.0.weight": LayerFlops(2 * 120, 120),
        "net.1.weight": LayerFlops(2 * 80, 0),
        "net.2.weight": LayerFlops(2 * 48, 48),
        "teacher.weight": LayerFlops(72, 0),
    }
    # torch leaves out the gradient of the first layer's input, which the convention counts
    net[1].weight.requires_grad_(True)
    with CallRecorder(net) as recorder, FlopCounterMode(display=False) as counter:
        net(data).sum().backward()
    whole = sum(layer.passes + layer.gradient for layer in layer_flops(recorder.calls).values())
    assert whole == counter.get_total_flops() + 120


def test_looking_changes_nothing():
    def train(look):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten())
        net.append(spectral_norm(nn.Linear(144, 10)))
        recorder = CallRecorder(net) if look else None
        net(torch.rand(8, 1, 8, 8)).square().mean().backward()
        if recorder:
            assert [call.name for call in recorder.calls] == ["0.weight", "4.weight"]
            assert [call.flops for call in recorder.calls] == [2 * 36 * 36 * 8, 2 * 1440 * 8]
            recorder.close()
        assert not any(module._forward_hooks for module in net.modules())
        assert not global_hooks()
        return [*net.state_dict().values(), *(p.grad for p in net.parameters()), torch.get_rng_state()]

    assert all(torch.equal(one, two) for one, two in zip(train(True), train(False), strict=True))


def test_what_is_computed_again_in_a_paused_backward_pass_is_not_counted_twice():
    layer = nn.Linear(6, 6)
    with CallRecorder(layer) as recorder:
        loss = checkpoint(layer, torch.rand(2, 6), use_reentrant=False).sum()
        recorder.paused = True
        loss.backward()
    assert [call.flops for call in recorder.calls] == [144]


def test_a_training_by_hand():
    flops = TrainingFlops()
    total = {"a": 100, "b": 10}
    flops.set_masks({"a": 50, "b": 5}, total)
    flops.set_cost({"a": LayerFlops(200, 100), "b": LayerFlops(20, 10), "dense": LayerFlops(40, 20)}, 8)
    flops.set_cost({"a": LayerFlops(1, 1)}, 8)  # ignored: the first look has found the cost
    flops.add_batch(8, stepped=False)
    flops.add_batch(8, stepped=True)
    flops.add_batch(4, stepped=False)  # a smaller batch
    flops.add_batch(8, stepped=True)
    assert flops.dense == 3.5 * (300 + 30 + 60)
    assert flops.sparse == 3.5 * (150 + 15 + 60)
    # Growth has read the gradient of the last step, of one batch and a half, in one layer.
    flops.set_masks({"a": 20, "b": 6}, total, dense_gradient=["a"])
    assert flops.sparse == 3.5 * (150 + 15 + 60) + 1.5 * (100 - 50)
    flops.add_batch(8, stepped=True)
    after = 3.5 * (150 + 15 + 60) + 75 + (0.2 * 300 + 0.6 * 30 + 60)
    assert flops.sparse == pytest.approx(after)
    # From now on a score watches every gradient of the second layer.
    flops.set_masks({"a": 20, "b": 1}, total, always=["b"])
    flops.add_batch(16, stepped=True)
    flops.set_masks({"a": 20, "b": 1}, total, dense_gradient=["b"], always=["b"])  # dense already
    assert flops.sparse == pytest.approx(after + 2 * (60 + 0.1 * 20 + 10 + 60))
    assert flops.dense == 6.5 * 390


def test_a_restored_count_goes_on_to_the_bit_and_looking_at_it_changes_nothing():
    def run(interrupt):
        flops = TrainingFlops()
        flops.set_cost({"a": LayerFlops(7, 3)}, 3)
        flops.set_masks({"a": 5}, {"a": 9})
        for batch in range(20):
            flops.add_batch(1 + batch % 3, stepped=True)
            if batch == 11:
                flops.set_masks({"a": 4}, {"a": 9}, dense_gradient=["a"])
            if interrupt and batch in (4, 14):
                state, flops = flops.state_dict(), TrainingFlops()
                flops.load_state_dict(state)
                assert flops.sparse > 0
                flops.set_cost({"a": LayerFlops(70, 30)}, 3)
                flops.set_masks({"a": 5 if batch < 11 else 4}, {"a": 9})
        return flops.dense, flops.sparse

    assert run(True) == run(False)


@pytest.mark.parametrize(
    ("batch", "size"),
    [
        (torch.zeros(4, 3), 12),
        ([torch.zeros(4, 3), torch.zeros(4)], 12),
        ({"meta": "text", "x": (torch.zeros(2, 2), 1)}, 4),
        ([], 1),
        ("text", 1),
        (None, 1),
        ([torch.zeros(0), torch.zeros(3)], 3),
    ],
)
def test_the_size_of_a_batch_is_that_of_its_first_tensor(batch, size):
    assert batch_elements(batch) == size
