"""Peak memory: sizes worked out by hand for small networks, and torch's profiler as an independent witness."""

import copy
import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure.description.peak_memory import peak_memory
from lightning_sparse.models.networks import lenet5, lenet_300_100

BYTES = 4  # of a float32


def mlp():
    return nn.Sequential(nn.Linear(10, 50, bias=False), nn.ReLU(), nn.Linear(50, 20, bias=False))


@pytest.mark.parametrize("n", [1, 16])
def test_inference_by_hand(n):
    # The most is alive around the ReLU: its input and its output.
    assert peak_memory(mlp(), torch.rand(n, 10)) == BYTES * (1500 + 10 * n + 2 * 50 * n)
    # With a wide output it is around the second layer.
    wide = nn.Sequential(nn.Linear(10, 50, bias=False), nn.Linear(50, 200, bias=False))
    assert peak_memory(wide, torch.rand(n, 10)) == BYTES * (500 + 10000 + 10 * n + 50 * n + 200 * n)


def test_training_by_hand():
    # The most is alive when the backward pass goes through the ReLU: its output, the gradients of its output and of its
    # input, and the second weight's gradient; the loss and the 1 that its backward pass begins with are held throughout.
    n = 16
    assert peak_memory(mlp(), torch.rand(n, 10), training=True) == BYTES * (1500 + 10 * n + 3 * 50 * n + 1000 + 2)
    # With few images it is at the end: both weights' gradients, and the gradient before the ReLU (its output is gone).
    assert peak_memory(mlp(), torch.rand(1, 10), training=True) == BYTES * (1500 + 10 + 50 + 1500 + 2)


def test_views_count_once_and_work_in_place_counts_nothing():
    class Views(nn.Module):
        def forward(self, x):
            parts = [x.view(-1), x.t(), x[1:], x.unsqueeze(0), x.add_(1)]
            return x.mul_(len(parts))

    assert peak_memory(Views(), torch.rand(8, 4)) == BYTES * 32


def test_what_dies_makes_room():
    class Chain(nn.Module):
        def forward(self, x):
            for _ in range(10):
                x = x + 1
            return x

    class Kept(nn.Module):
        def forward(self, x):
            return sum([x + i for i in range(10)])

    # The batch, which the caller holds, and two of the chain; in the other, all ten, the sum so far and the next.
    assert peak_memory(Chain(), torch.rand(100)) == BYTES * 300
    assert peak_memory(Kept(), torch.rand(100)) == BYTES * (100 + 1000 + 200)


def test_buffers_count_and_batchnorm_saves_more_in_training():
    net = nn.BatchNorm1d(30)
    whole = 4 * 30 * BYTES + 8  # weight, bias, mean, variance, and the counter in int64
    assert peak_memory(net, torch.rand(50, 30)) == whole + 2 * 50 * 30 * BYTES
    assert peak_memory(net, torch.rand(50, 30), training=True) > whole + 3 * 50 * 30 * BYTES


def profiled(work, folder):
    """The highest sum of what torch's allocator handed out meanwhile, from its own trace."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=kinds, profile_memory=True) as profile:
        work()
    profile.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    now = peak = 0
    for event in sorted((e for e in events if e.get("name") == "[memory]"), key=lambda event: event["ts"]):
        now += event["args"]["Bytes"]
        peak = max(peak, now)
    return peak


@pytest.mark.filterwarnings("ignore")  # the profiler's own
@pytest.mark.parametrize("training", [False, True])
def test_torchs_profiler_sees_the_same(tmp_path, training):
    net, images = lenet_300_100((1, 8, 8), 10), torch.rand(32, 1, 8, 8)
    labels = torch.zeros(32, dtype=torch.long)

    def work():
        with torch.set_grad_enabled(training):
            output = net(images)
            if training:
                F.cross_entropy(output, labels).backward()

    held = sum(p.nbytes for p in net.parameters()) + images.nbytes
    found = peak_memory(net, images, training=training) - held
    # Without our mode around it autograd copies the gradients of the biases instead of keeping the first ones.
    spare = sum(p.nbytes for name, p in net.named_parameters() if "bias" in name) + labels.nbytes
    assert found == pytest.approx(profiled(work, tmp_path), abs=spare if training else 0)


def test_it_leaves_no_trace_even_after_an_exception():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3))
    net[2].eval()
    net(torch.rand(4, 1, 8, 8)).sum().backward()

    def state():
        modes = [module.training for module in net.modules()]
        tensors = [*net.state_dict().values(), *(p.grad for p in net.parameters()), torch.get_rng_state()]
        return modes, [tensor.clone() for tensor in tensors]

    modes, tensors = state()
    for training in (False, True):
        with torch.inference_mode():
            peak_memory(net, torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), training=training)
        with pytest.raises(RuntimeError, match="shapes"):
            peak_memory(net, torch.zeros(4, 1, 7, 7), training=training)
        assert state()[0] == modes
        assert all(torch.equal(one, two) for one, two in zip(state()[1], tensors, strict=True))


def test_anything_but_a_batch_is_refused():
    for images in (torch.tensor(1.0), torch.zeros(0, 10), [1.0]):
        with pytest.raises(SparsityError, match="not a batch"):
            peak_memory(mlp(), images)


def test_twice_is_the_same_and_a_compiled_network_is_measured_as_written():
    net, images = lenet5((1, 28, 28), 10), torch.rand(8, 1, 28, 28)
    for training in (False, True):
        first = peak_memory(net, images, training=training)
        assert peak_memory(net, images, training=training) == first
        assert peak_memory(torch.compile(copy.deepcopy(net)), images, training=training) == first


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("training", [False, True])
def test_on_a_gpu_it_is_near_what_a_cpu_says(training):
    net, images = lenet_300_100((1, 28, 28), 10), torch.rand(4096, 1, 28, 28)
    expected = peak_memory(net, images, training=training)
    found = peak_memory(net.cuda(), images, training=training)
    assert found == pytest.approx(expected, rel=0.05)
    assert peak_memory(net, images.cuda(), training=training) == found
