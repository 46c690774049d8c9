"""The factors of layers whose weight is a product, as tltorch keeps them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

_TENSOR = "tltorch.factorized_tensors.core.FactorizedTensor"
_LINEAR = "tltorch.factorized_layers.factorized_linear.FactorizedLinear"
_EMBEDDING = "tltorch.factorized_layers.factorized_embedding.FactorizedEmbedding"


def factor_names(model: nn.Module) -> Iterator[str]:
    """Names of the parameters that tltorch's layers, but embeddings, multiply to their weights; vectors are none.

    Example:
        >>> import tltorch
        >>> train = tltorch.FactorizedLinear((4, 4), (2, 5), factorization="blocktt", rank=(1, 3, 1))
        >>> list(factor_names(nn.Sequential(train)))
        ['0.weight.factors.factor_0', '0.weight.factors.factor_1']
    """
    for prefix, module in model.named_modules():
        if not _is(module, _TENSOR) or _is(model.get_submodule(prefix.rpartition(".")[0]), _EMBEDDING):
            continue
        yield from (name for name, factor in module.named_parameters(prefix) if factor.dim() > 1)


def is_tensor_train(module: Any) -> bool:
    """Whether it is a Linear layer of tltorch whose weight is a tensor train, not one of several that share a train."""
    return _is(module, _LINEAR) and module.weight._name == "BlockTT" and module.n_layers == 1


def _is(module: Any, kind: str) -> bool:
    return any(f"{k.__module__}.{k.__name__}" == kind for k in type(module).__mro__)
