"""Times beside a dense network: what must hold on any machine, however busy. No time is compared with a number of seconds."""

import copy
import gc
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_sparse import SparsityError
from lightning_sparse.measure import measure_latency
from lightning_sparse.measure.description.machine import machine_in_words
from lightning_sparse.measure.description.peak_memory import peak_memory
from lightning_sparse.models.networks import small_cnn

SOON = {"seconds": 0.3}


def mlp(width, inputs=256):
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, inputs))


def by_name(measured):
    return {(row.metric.removeprefix("cost_"), row.n): row for row in measured.records}


def test_eight_times_the_work_takes_several_times_as_long_and_a_copy_of_dense_as_long_as_dense():
    small, large = mlp(256), mlp(2048)
    found = by_name(measure_latency({"large": large}, torch.rand(3, 256), (64, 16), baseline=small, **SOON))
    for size in (64, 16):
        assert found["latency_large", size].value > 3
        noise = found["latency_noise", size]
        assert noise.low <= noise.value <= noise.high
        assert noise.low - 0.25 < 1 < noise.high + 0.25
        assert found["throughput_dense", size].value > 3 * found["throughput_large", size].value > 0
        bytes_of = {name: peak_memory(net, torch.rand(size, 256)) for name, net in (("s", small), ("l", large))}
        assert found["memory_large", size].value == bytes_of["l"] / bytes_of["s"]
    assert len(found) == 2 * 5
    assert [row.chart for row in measure_latency(small, torch.rand(1, 256), [1], **SOON).records] == [
        "cost/latency_model/batch=1",
        "cost/latency_noise/batch=1",
        "cost/memory_model/batch=1",
        "cost/throughput_dense/batch=1",
        "cost/throughput_model/batch=1",
    ]


def test_zeros_save_nothing():
    net = mlp(512)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(torch.rand_like(parameter) > 0.9)
    found = by_name(measure_latency(net, torch.rand(1, 256), [32], **SOON))
    assert 0.5 < found["latency_model", 32].value < 2
    assert found["memory_model", 32].value == 1.0


def test_the_row_says_how_many_threads_and_what_the_machine_can_do():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        rows = measure_latency(mlp(8), torch.rand(1, 256), [1], seconds=0.01).records
    finally:
        torch.set_num_threads(threads)
    detail = next(row.detail for row in rows if row.metric == "cost_latency_model")
    assert "3 threads" in detail
    assert torch.backends.cpu.get_cpu_capability() in detail
    assert re.match(r"[\d.e-]+ ms, dense [\d.e-]+ ms; median of ratios within \d+ rounds in turns", detail)
    flags = set(Path("/proc/cpuinfo").read_text().split())
    for flag in ("amx_tile", "amx_bf16", "avx512_bf16"):
        assert (flag in flags) == (flag in detail)


def test_where_the_cpu_says_nothing_that_is_said(monkeypatch, tmp_path):
    from lightning_sparse.measure.description import machine

    monkeypatch.setattr(machine, "_CPU_INFO", tmp_path / "none")
    assert "bf16 and AMX not known" in machine_in_words(torch.device("cpu"))
    (tmp_path / "arm").write_text("processor : 0\nFeatures\t: fp asimd sve bf16 i8mm\n")
    monkeypatch.setattr(machine, "_CPU_INFO", tmp_path / "arm")
    assert "i8mm bf16 sve" in machine_in_words(torch.device("cpu"))
    (tmp_path / "old").write_text("model name : Old CPU\nflags : fpu sse\n")
    monkeypatch.setattr(machine, "_CPU_INFO", tmp_path / "old")
    assert machine_in_words(torch.device("cpu")).startswith("Old CPU, ")
    assert "neither bf16, VNNI nor AMX" in machine_in_words(torch.device("cpu"))


class Two(nn.Module):
    """Takes two inputs, notes what it sees, and writes into them and into a buffer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("calls", torch.zeros(()))
        self.seen = set()

    def forward(self, x, index):
        self.calls += 1
        self.seen.add((len(x), index.dtype, self.training, torch.is_grad_enabled()))
        return self.norm(self.layer(x)) + torch.nn.functional.dropout(x, 0.5) + index[:, None]


def test_it_leaves_no_trace_and_calls_as_it_says():
    net = Two().train()
    net.norm.eval()
    net.layer.weight.requires_grad_(False)
    net.layer.bias.grad = torch.ones(4)
    example = (torch.rand(3, 4), torch.arange(3))
    before = [tensor.clone() for tensor in (*net.state_dict().values(), *example, torch.get_rng_state())]
    with torch.inference_mode():
        measure_latency(net, example, (2, 7), seconds=0.02)
    after = [*net.state_dict().values(), *example, torch.get_rng_state()]
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))
    assert [module.training for module in net.modules()] == [True, True, False]
    assert not net.layer.weight.requires_grad
    assert torch.equal(net.layer.bias.grad, torch.ones(4))
    assert net.layer.weight.grad is None
    assert net.seen == {(size, torch.int64, False, False) for size in (2, 7)}
    assert gc.isenabled()


def test_a_small_example_is_repeated_and_a_large_one_cut():
    seen = []

    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x):
            seen.append(x.clone())
            return x * self.weight

    example = torch.tensor([[1.0], [2.0], [3.0]])
    measure_latency(Keeps(), example, [5, 2], seconds=0.001)
    assert {tuple(batch.flatten().tolist()) for batch in seen} == {(1, 2, 3, 1, 2), (1, 2)}


class CSR(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.register_buffer("weight", weight.to_sparse_csr())

    def forward(self, x):
        return (self.weight @ x.T).T


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_a_module_of_sparse_tensors_is_compared_with_its_dense_one_and_its_memory_is_counted():
    dense = nn.Linear(500, 300, bias=False)
    with torch.no_grad():
        dense.weight.mul_(torch.rand(300, 500) > 0.95)
    sparse = CSR(dense.weight.detach())
    living = int((dense.weight != 0).sum())
    x = torch.rand(16, 500)
    torch.testing.assert_close(sparse(x), dense(x))
    # Values in 4 bytes, columns and row ends in 8, the batch, and what comes out.
    assert peak_memory(sparse, x) >= 12 * living + 8 * 301 + 4 * 16 * (500 + 300)
    found = by_name(measure_latency({"csr": sparse}, x, [16], baseline=dense, **SOON))
    assert found["memory_csr", 16].value == peak_memory(sparse, x) / peak_memory(dense, x) < 0.5
    with pytest.raises(SparsityError, match=r"holds sparse tensors.*write baseline=dense_model"):
        measure_latency(sparse, x, [16])
    measure_latency(sparse, x, [16], baseline=dense, seconds=0.01)


def test_what_cannot_be_copied_is_timed_itself_and_a_module_without_tensors_has_no_memory():
    net = nn.Linear(4, 4)
    net.history = net.weight * 2  # deepcopy refuses a tensor with a history
    with pytest.raises(RuntimeError):
        copy.deepcopy(net)
    rows = measure_latency({"outside": nn.Flatten()}, torch.rand(2, 4), [2], baseline=net, seconds=0.01).records
    assert {row.metric for row in rows} == {
        "cost_latency_outside",
        "cost_latency_noise",
        "cost_throughput_outside",
        "cost_throughput_dense",
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": 3}, "model=3 is not a torch.nn.Module"),
        ({"model": {}}, "holds no module: write model="),
        ({"model": {"dense": mlp(2)}}, "'dense': ...} is not a name of small letters"),
        ({"model": {"a/b": mlp(2)}}, "is not a name of small letters"),
        ({"model": {"a": 3}}, r"model\['a'\]=3 is not a torch.nn.Module"),
        ({"model": {"a": mlp(2)}, "baseline": None}, "no dense network to compare several with: write baseline="),
        ({"baseline": 3}, "baseline=3 is not a torch.nn.Module"),
        ({"example": 3}, "example is not a batch: give a tensor"),
        ({"example": torch.tensor(1.0)}, "example is not a batch"),
        ({"example": torch.zeros(0, 256)}, "example is not a batch"),
        ({"example": (torch.zeros(2, 256), torch.zeros(3))}, "a tuple of them with the same n"),
        (
            {"example": torch.zeros(2, 255)},
            r"baseline cannot be called with a batch of shape \(1, 255\) \(.*\): give as",
        ),
        (
            {"example": torch.zeros(2, 255), "model": {"a": mlp(2)}, "baseline": mlp(2, 255)},
            "model 'a' cannot be called",
        ),
        ({"batch_sizes": 8}, r"write batch_sizes=\[8\]"),
        ({"batch_sizes": []}, r"batch_sizes=\[\] is not a list of sizes"),
        ({"batch_sizes": [0]}, "batch_sizes=0 is not an integer"),
        ({"batch_sizes": [1.5]}, "batch_sizes=1.5 is not an integer"),
        ({"batch_sizes": [10**6]}, r"batch_sizes=1000000 is not an integer in \[1, 65536\]"),
        ({"seconds": 0}, "seconds=0 is not a number above 0 and up to 3600: write seconds=2"),
        ({"seconds": True}, "seconds=True"),
        ({"seconds": float("nan")}, "seconds=nan"),
        ({"baseline": mlp(2).to("meta")}, "is on cpu and 'baseline' on meta: move both to one device"),
    ],
)
def test_odd_arguments_are_refused_by_name(changes, message):
    right = {"model": mlp(2), "example": torch.zeros(2, 256), "batch_sizes": [1], "baseline": mlp(2), "seconds": 0.001}
    measure_latency(**right)
    with pytest.raises(SparsityError, match=message):
        measure_latency(**right | changes)


def test_advice_is_right():
    net, example = small_cnn((1, 8, 8), 10), torch.rand(2, 1, 8, 8)
    measure_latency({"shrunk": net}, example, batch_sizes=[8], baseline=net, seconds=0.001)
    measure_latency(net, next(iter([(example, None)]))[0], [1], seconds=0.001)
    measure_latency(net, example, [1], seconds=2.0 / 1000)
