"""Zeros that something else has made are kept while the rest is trained on."""

import pytest
import torch

import settings
from lightning_sparse import GradualPruning, RigL, SparseTraining, sparsity_of


def pruned():
    module = settings.Module()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in module.parameters():
            if weight.dim() == 2:
                weight[torch.rand(weight.shape, generator=generator) < 0.7] = 0.0
    return module, {name: weight == 0 for name, weight in module.named_parameters() if weight.dim() == 2}


def test_a_constant_sparsity_keeps_exactly_those_zeros(make_trainer):
    module, zeros = pruned()
    before = sparsity_of(module)
    callback = SparseTraining(before)
    make_trainer(callback, max_epochs=1).fit(module, settings.batches())
    for name, mask in callback.masks.items():
        assert torch.equal(~mask, zeros[name])
    assert sparsity_of(module) == callback.sparsity == before


def test_gradual_pruning_goes_on_from_there(make_trainer):
    module, zeros = pruned()
    callback = GradualPruning(0.95, initial_sparsity=sparsity_of(module))
    make_trainer(callback, max_epochs=1).fit(module, settings.batches())
    assert all(bool((module.get_parameter(name)[mask] == 0).all()) for name, mask in zeros.items())
    assert callback.sparsity == pytest.approx(0.95, abs=1e-3)


def test_rigl_is_born_on_those_zeros_and_moves_them(make_trainer):
    module, zeros = pruned()
    sparsity = sparsity_of(module)
    callback = RigL(sparsity, birth="magnitude", allocation="global", every=3)
    make_trainer(callback, max_epochs=1).fit(module, settings.batches())
    moved = sum(int((callback.masks[name] & zero).sum()) for name, zero in zeros.items())
    assert moved > 0
    assert callback.sparsity == sparsity
