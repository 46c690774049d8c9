"""What is measured on a GPU is what a CPU measures, within what rounding, and random starts drawn elsewhere, make of it."""

import pytest
import torch
from torch import nn

from lightning_sparse import measure
from lightning_sparse.data import ImageData
from lightning_sparse.models import small_cnn

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

EPS = [0.02, 0.1]
ONE_IMAGE = 1 / 200  # of those below
OTHER_STARTS = 0.02  # a GPU draws other numbers from the same seed
MEASURES = {
    # name: (what to measure, the largest difference, and whether that is relative)
    "accuracy": (lambda model, data: measure.measure_accuracy(model, data), ONE_IMAGE, False),
    "robustness": (
        lambda model, data: measure.measure_robustness(model, data, eps=EPS, tier="monitor"),
        OTHER_STARTS,
        False,
    ),
    "transfer": (lambda model, data: transferred(model, data), OTHER_STARTS, False),
    "hessian": (lambda model, data: measure.measure_hessian(model, data), 1e-3, True),
    "jacobian": (lambda model, data: measure.measure_jacobian(model, data), 1e-3, True),
    "description length": (lambda model, data: measure.measure_description_length(model, data), 1e-3, True),
}


def transferred(model, data):
    return measure.measure_transfer({"itself": measure.craft(model, data, eps=EPS[1])}, model, data, eps=EPS[1])


@pytest.fixture(scope="module")
def data():
    return ImageData("digits", shape=(1, 8, 8), classes=10, mean=[0.3], std=[0.4])


@pytest.fixture(scope="module")
def model(data):
    """Trained for a moment, so that some images stand and some fall."""
    torch.manual_seed(0)
    images, labels = data.split("train")
    net = small_cnn((1, 8, 8), 10)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for epoch in range(4):
        for places in torch.randperm(len(images), generator=torch.Generator().manual_seed(epoch)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images[places]), labels[places]).backward()
            optimizer.step()
    return net.eval()


@pytest.mark.parametrize("name", list(MEASURES))
def test_a_gpu_measures_what_a_cpu_measures(name, model, data, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # by torch's default convolutions have 10 bits
    run, bound, relative = MEASURES[name]
    images = data.split("test", 200)
    here = run(model.cpu(), images).records
    there = run(model.cuda(), images).records
    assert len(here) == len(there) > 0
    for cpu, gpu in zip(here, there, strict=True):
        assert (cpu.metric, cpu.attack, cpu.eps) == (gpu.metric, gpu.attack, gpu.eps)
        near = {"rel": bound} if relative else {"rel": 0.0, "abs": bound}
        assert gpu.value == pytest.approx(cpu.value, nan_ok=True, **near), (cpu.metric, cpu.attack, cpu.eps)
