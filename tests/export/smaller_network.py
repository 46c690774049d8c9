"""A smaller network beside the one that it was made from."""

import copy

import torch


def zero(*tensors):
    with torch.no_grad():
        for tensor in tensors:
            tensor.zero_()


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def assert_same(model, small, example, count=3):
    """On inputs that shrink has not seen, of several sizes."""
    model, small = copy.deepcopy(model).eval(), copy.deepcopy(small).eval()
    for scale in (0.3, 1.0, 3.0)[:count]:
        fresh = scale * torch.randn(example.shape, generator=torch.Generator().manual_seed(7), dtype=example.dtype)
        with torch.no_grad():
            wanted, given = model(fresh), small(fresh)
        assert given.shape == wanted.shape
        assert (given - wanted).abs().max() <= 1e-5 * wanted.abs().max()
