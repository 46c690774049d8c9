"""Every callback with odd values for one or two of its arguments, and a real training of those that are taken."""

import inspect
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_sparse
from fuzz.odd_values import values
from fuzz.outcomes import at_most, may_be_right, result_or_refusal
from fuzz.valid_callbacks import CALLBACKS, COMMON
from lightning_sparse import SparseTraining, SparsityError
from settings import Module, dead_are_zero, quiet

STEPS = 20


class Images(Module):
    """Somebody's module on images, which counts its training steps."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), self.body)
        self.steps = 0

    def training_step(self, batch, batch_idx):
        self.steps += 1
        return super().training_step(batch, batch_idx)


def batches():
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(STEPS * 8, 1, 8, 8, generator=generator), torch.arange(STEPS * 8) % 10
    return DataLoader(TensorDataset(images, labels), batch_size=8)


def arguments_of(name):
    """All that a callback takes, with right values: its own, and what every method takes."""
    takes = inspect.signature(getattr(lightning_sparse, name)).parameters
    common = COMMON if "others" in takes else {}
    return {
        **{key: value for key, value in common.items() if key not in ("drop", "grow", "redistribute", "rewind")},
        **CALLBACKS[name],
    }


def annotations_of(name):
    """The annotations of what a callback takes; methods hand what they do not name to SparseTraining."""
    common = {p.name: p.annotation for p in inspect.signature(SparseTraining).parameters.values()}
    return common | {
        p.name: p.annotation for p in inspect.signature(getattr(lightning_sparse, name)).parameters.values()
    }


@pytest.mark.parametrize("name", sorted(name for name, arguments in CALLBACKS.items() if arguments))
def test_odd_arguments_of_a_callback(name):
    kind, right, annotations = getattr(lightning_sparse, name), arguments_of(name), annotations_of(name)

    def train(arguments):
        module, loader = Images(), batches()
        callback = kind(**arguments)
        try:
            quiet(callback, max_epochs=1, num_sanity_val_steps=0).fit(module, loader, loader)
        except SparsityError:
            assert module.steps == 0, f"refused after {module.steps} steps"
            raise
        return module, callback

    def check(arguments, odd):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = result_or_refusal(lambda: train(arguments | odd), quiet_warnings=False)
        if isinstance(found, SparsityError):
            return
        wrong = {
            argument: value
            for argument, value in odd.items()
            if not may_be_right(argument, annotations[argument], value)
        }
        assert not wrong, f"{name} takes {wrong!r} in silence"
        module, callback = found
        if isinstance(callback, SparseTraining):
            assert dead_are_zero(module, callback.masks)
            asked = (arguments | odd).get("final_sparsity", 0.5)
            warned = any("sparsity" in str(warning.message) for warning in said)
            if name != "DenseSparseDense" and not warned and "sparsity" not in odd:
                assert abs(callback.sparsity - asked) < 0.01, (
                    f"{asked} asked for, {callback.sparsity} reached in silence"
                )

    @given(st.data())
    def try_some(data):
        chosen = data.draw(st.lists(st.sampled_from(sorted(right)), min_size=1, max_size=2, unique=True))
        check(right, {argument: data.draw(values, label=argument) for argument in chosen})

    with at_most(60):
        check(right, {})
    try_some()
