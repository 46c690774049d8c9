"""The weights of any model as they are used, to count their zeros: trainable or frozen, quantised or rewritten."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from lightning_sparse.anatomy.factors import factor_names
from lightning_sparse.anatomy.layers import is_layer, outputs_and_inputs
from lightning_sparse.anatomy.parameters import halves_are_excluded, names_of
from lightning_sparse.anatomy.patterns import matching, some
from lightning_sparse.errors import SparsityError


def countable(
    model: nn.Module, include: Sequence[str] | None = None, exclude: Sequence[str] | None = None
) -> dict[str, Tensor]:
    """Return the weights of a model's layers, by name, each once, quantised ones as the numbers that they stand for.

    Args:
        model: any module.
        include: patterns of parameter names; None takes the weights of Linear and Conv layers, of transformers' Conv1D,
            and the factors of tltorch's.
        exclude: patterns of names to leave out.

    Raises:
        SparsityError: if a pattern matches nothing, nothing is left, or a weight cannot be read.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).requires_grad_(False)
        >>> {name: tuple(weight.shape) for name, weight in countable(net).items()}
        {'0.weight': (2, 3)}
    """
    names, layers = names_of(model), dict(_weights_of_layers(model, exclude or ()))
    tensors: Mapping[str, Any] = {**dict(model.named_parameters()), **layers}
    names |= {name: names.get(name, name) for name in layers}
    left_out = set(matching("exclude", exclude or (), names))
    chosen = [n for n in layers if names[n] == n] if include is None else matching("include", include, names)
    found = {name: _read(model, name, tensors[name]) for name in chosen if name not in left_out}
    if not any(weight.numel() for weight in found.values()):
        raise SparsityError(
            f"{type(model).__name__} has no weight to count: by default those of Linear and Conv layers are, trainable or "
            f"not, and it has none left; name others with include=[...] (parameters: {some(names.values())})"
        )
    return found


def _weights_of_layers(model: nn.Module, exclude: Sequence[str]) -> Iterator[tuple[str, Any]]:
    for prefix, module in model.named_modules():
        weight: Any = getattr(module, "weight", None)
        if is_layer(module):
            if "weight" in module._parameters or not (exclude and halves_are_excluded(prefix, module, exclude)):
                yield f"{prefix}.weight".lstrip("."), weight
        elif (
            callable(weight)
            and not isinstance(weight, nn.Module)
            and (hasattr(module, "in_features") or hasattr(module, "in_channels"))
        ):
            yield f"{prefix}.weight".lstrip("."), weight()  # torch.ao's, which keep it packed
    yield from ((name, model.get_parameter(name)) for name in factor_names(model))


def _read(model: nn.Module, name: str, weight: Any) -> Tensor:
    """A weight as numbers, or an error if it has no shape yet or holds them packed."""
    if isinstance(weight, UninitializedParameter):
        raise SparsityError(f"{name!r} has no shape yet (a lazy layer): run one batch through the model first")
    if isinstance(weight, Tensor):
        found: Tensor = weight.detach()
        if weight.is_quantized or _dequantises_itself(weight):
            found = found.dequantize()
        layer = model.get_submodule(name.rpartition(".")[0])
        if not (isinstance(layer, nn.Linear) and name.endswith("weight")) or found.shape == outputs_and_inputs(layer):
            return found
    raise SparsityError(
        f"{name!r} cannot be read: its layer keeps its weights packed; leave it out with exclude=[{name!r}]"
    )


def _dequantises_itself(weight: Tensor) -> bool:
    """Whether it is one of torchao's tensors, or another subclass with a ``dequantize`` of its own."""
    return type(weight).dequantize is not Tensor.dequantize
