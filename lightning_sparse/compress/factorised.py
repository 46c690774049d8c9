"""Layers as products of smaller ones, decomposed from their weights, at ranks that leave a share of the numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sparse.anatomy.modules import check_module
from lightning_sparse.anatomy.parameters import names_of
from lightning_sparse.anatomy.patterns import check_patterns, matching
from lightning_sparse.compress.factorisation.kinds import FACTORISATIONS, KINDS, form_of, why_no_train
from lightning_sparse.compress.factors import Factors, fits
from lightning_sparse.compress.ranks import Choice, ranks_of
from lightning_sparse.compress.replaceable import layers_of, reasons_to_stay
from lightning_sparse.errors import SparsityError, check_choice, check_flag


def factorise_layers(
    model: nn.Module,
    share: float | None,
    kind: str = "svd",
    *,
    rank: int | None = None,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    fresh: bool = False,
) -> tuple[list[Factors], dict[str, str]]:
    """Replace layers of a model, in place, by products of smaller ones that are near to them.

    Of a plain layer, the factors are plain layers too, in a ``Sequential`` at its place; of a tensor train, tltorch's. Biases
    stay the same parameters. Layers are left alone whose factors would take no fewer numbers, or that cannot be replaced.

    Args:
        model: any module.
        share: of the weights of the layers that can be factorised, in (0, 1): all of them together take at most this. Each
            layer has the same rank, or its full one where that is less. None if ``rank`` is given.
        kind: ``"svd"`` (of a convolution as a matrix: Denton et al. 2014, arXiv 1404.0736), ``"tucker"``, ``"cp"`` or
            ``"tensor_train"``, see :data:`KINDS`.
        rank: of each layer, at least 1, or as high as the layer allows where that is less.
        include: patterns of the names of weights, such as ``"encoder.*"``; None takes all layers.
        exclude: patterns to leave out.
        fresh: draw the factors at random instead, so that their product has the spread of the layer's weight: a network to be
            trained from the start. tltorch's own start is too small for SGD to learn from.

    Returns:
        What became of the layers, and why others were left alone, by name.

    Raises:
        SparsityError: if no rank is low enough for ``share``, or ``rank`` too high for all layers; nothing is changed then.

    Example:
        >>> net = nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 10))
        >>> factorise_layers(net, None, rank=20)
        ([Factors(name='0', place=0, kind='svd', ranks=(20,), modes=())], {'2': 'rank 10 would take 3100 numbers, and it has 3000'})
        >>> net[0]
        Product(
          (0): Linear(in_features=784, out_features=20, bias=False)
          (1): Linear(in_features=20, out_features=300, bias=True)
        )
    """  # noqa: E501
    check_module(model)
    check_choice("kind", kind, KINDS)
    check_flag("fresh", fresh)
    choices, left_alone = _choices(model, kind, include, exclude)
    found = []
    for choice, of_full in zip(choices, ranks_of(choices, share, rank), strict=True):
        factors = choice.factors(of_full)
        if factors is None:
            ranks = FACTORISATIONS[choice.kind].ranks(choice.layer, of_full)
            needed = FACTORISATIONS[choice.kind].numbers(choice.layer, ranks, choice.modes)
            what = ", ".join(map(str, ranks))
            left_alone[choice.name] = f"rank {what} would take {needed} numbers, and it has {choice.size}"
            continue
        values = _drawn if fresh else _decomposed
        found.append((choice.layer, _with_values(choice.layer, factors, values(choice.layer, factors)), factors))
    for layer, product, _ in found:
        _replace(model, layer, product)
    return [factors for _, _, factors in found], left_alone


def factorise_as(model: nn.Module, factors: Sequence[Factors]) -> None:
    """Replace the layers of a dense model, in place, as :func:`factorise_layers` did; all factors are zero.

    The state of the model that it changed can then be loaded.

    Raises:
        SparsityError: if one does not fit the model.

    Example:
        >>> net = nn.Sequential(nn.Linear(784, 300))
        >>> factorise_as(net, [Factors("0", 0, "svd", (20,))])
        >>> {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
        {'0.0.weight': (20, 784), '0.1.weight': (300, 20), '0.1.bias': (300,)}
    """
    layers = layers_of(model)
    stay = reasons_to_stay(model, [each.name for each in factors if each.name in layers])
    found = []
    for each in factors:
        layer = layers.get(each.name)
        if each.name in stay or not fits(layer, each):
            reason = stay.get(each.name, f"it is {layer}" if layer is not None else "there is no such layer")
            raise SparsityError(
                f"factors={each} do not fit {each.name!r} in model={type(model).__name__} ({reason}): give the dense "
                "architecture that was factorised"
            )
        zeros = [
            torch.zeros_like(weight)
            for weight in _weights(FACTORISATIONS[each.kind].build(layer, each.ranks, each.modes))
        ]
        found.append((layer, _with_values(layer, each, zeros)))
    for layer, product in found:
        _replace(model, layer, product)


def _choices(
    model: nn.Module, kind: str, include: Sequence[str] | None, exclude: Sequence[str] | None
) -> tuple[list[Choice], dict[str, str]]:
    """The layers that can be factorised, and why others cannot."""
    layers, names = layers_of(model), names_of(model)
    wanted = names.values() if include is None else matching("include", check_patterns("include", include) or (), names)
    unwanted = set(matching("exclude", check_patterns("exclude", exclude) or (), names))
    own = {name: names.get(f"{name}.weight".lstrip(".")) for name in layers}  # None where something else computes it
    asked = [n for n in layers if (include is None if own[n] is None else own[n] in wanted and own[n] not in unwanted)]
    left_alone, choices = reasons_to_stay(model, asked), []
    for place, (name, layer) in enumerate(layers.items()):
        if name not in asked or name in left_alone:
            continue
        choice = Choice(name, place, layer, *form_of(layer, kind))
        if not choice.kind:
            left_alone[name] = why_no_train(layer)
        elif not bool(layer.weight.any()):
            left_alone[name] = "its weight is zero, and no factor of it would learn"
        elif not bool(layer.weight.isfinite().all()):
            left_alone[name] = "its weight has NaN or infinite numbers"
        else:
            choices.append(choice)
    if not choices:
        said = "; ".join(f"{name!r}: {why}" for name, why in left_alone.items()) or "it has no Linear or Conv layer"
        raise SparsityError(
            f"kind={kind!r} can factorise no layer of {type(model).__name__} ({said}): write another kind"
        )
    return choices, left_alone


def _decomposed(layer: Any, factors: Factors) -> list[Tensor]:
    weight = layer.weight.detach().to("cpu", torch.float64)
    return FACTORISATIONS[factors.kind].decompose(weight, factors.ranks, factors.modes)


def _drawn(layer: Any, factors: Factors) -> list[Tensor]:
    """Normal factors whose product, a sum of as many terms as the ranks multiply to, has the spread of the weight."""
    shapes = [
        weight.shape for weight in _weights(FACTORISATIONS[factors.kind].build(layer, factors.ranks, factors.modes))
    ]
    terms = torch.tensor(factors.ranks, dtype=torch.float64).prod()
    spread = (layer.weight.detach().double().square().mean().sqrt().cpu() / terms.sqrt()) ** (1 / len(shapes))
    return [torch.randn(shape) * spread for shape in shapes]


def _with_values(layer: Any, factors: Factors, values: Sequence[Tensor]) -> nn.Module:
    product = FACTORISATIONS[factors.kind].build(layer, factors.ranks, factors.modes)
    with torch.no_grad():
        for weight, value in zip(_weights(product), values, strict=True):
            weight.copy_(value)
            weight.requires_grad_(layer.weight.requires_grad)
    return product.train(layer.training)


def _weights(product: Any) -> Iterator[nn.Parameter]:
    """The factors, in the order of the decomposition."""
    return (parameter for name, parameter in product.named_parameters() if name.rpartition(".")[2] != "bias")


def _replace(model: nn.Module, layer: object, product: nn.Module) -> None:
    """Put a module everywhere where another one is."""
    for module in list(model.modules()):
        here: Mapping[str, Any] = dict(module._modules)
        for key in [key for key, child in here.items() if child is layer]:
            module._modules[key] = product
