"""On a GPU: masks that are where their weights are, float16 with a real scaler, compiled steps, and how much memory."""

import pytest
import torch

import settings
from lightning_sparse import Curve, GradualPruning, Recipe, SparsityMonitor, Static, attach

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]


@pytest.mark.filterwarnings("ignore:training stopped at step:UserWarning")  # by as many steps as the scaler skips
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_after_a_fit_masks_and_weights_are_on_the_cpu(precision, make_method, make_trainer):
    """Under 16-mixed with torch's own scaler, which begins too large and skips some steps."""
    module, method = settings.Module(), make_method(0.9)
    make_trainer(method, SparsityMonitor(), accelerator="gpu", precision=precision, max_epochs=3).fit(
        module, settings.batches(), settings.batches()
    )
    assert {weight.device.type for weight in module.parameters()} == {"cpu"}
    assert {mask.device.type for mask in method.masks.values()} == {"cpu"}
    assert settings.dead_are_zero(module, method.masks)
    assert settings.exact(method.masks, method.engine.history[-1].asked if method.engine.history else 0.0)
    assert method.sparsity == method.masks.sparsity


def test_masks_equal_those_of_a_cpu(make_trainer):
    found = []
    for accelerator in ("cpu", "gpu"):
        method = Static(0.9)
        make_trainer(method, accelerator=accelerator, max_epochs=1).fit(settings.Module(), settings.batches())
        found.append(method.masks.checksum())
    assert found[0] == found[1]


@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores:UserWarning")  # inductor's advice
def test_a_compiled_step_is_masked(make_trainer):
    class Compiled(settings.Module):
        def __init__(self):
            super().__init__()
            self.body.compile()

    module, method = Compiled(), GradualPruning(0.9)
    make_trainer(method, accelerator="gpu", precision="bf16-mixed", max_epochs=2).fit(module, settings.batches())
    assert settings.exact(method.masks, 0.9)
    assert settings.dead_are_zero(module, method.masks)


def peak(compact):
    """Bytes that three steps need at most beyond those before them; None is training without masks."""
    net = torch.nn.Linear(4096, 4096, bias=False, device="cuda")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, foreach=False)
    if compact is not None:
        attach(optimizer, net, Recipe(Curve(0.9), compact_masks=compact))
    inputs = torch.randn(8, 4096, device="cuda")

    def step():
        optimizer.zero_grad()
        net(inputs).square().mean().backward()
        optimizer.step()

    step()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    for _ in range(3):
        step()
    return torch.cuda.max_memory_allocated()


def test_memory_of_training_grows_by_the_masks_alone():
    weights = 4096 * 4096
    dense = peak(None)
    assert peak(False) - dense == pytest.approx(4 * weights, abs=0.2 * weights)
    assert peak(True) - dense <= 1.2 * weights
