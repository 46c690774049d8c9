"""What the inputs of layers add up to over batches and ranks, without keeping any of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_sparse.anatomy.layer_inputs import LayerInput, LayerInputs
from lightning_sparse.anatomy.parameters import inputs_first
from lightning_sparse.engine.distributed import add_up, of_all_ranks
from lightning_sparse.engine.scores.of_network import Network
from lightning_sparse.errors import SparsityError

Part = tuple[str, int, int]  # a weight's name, the first of its rows and that after the last


class Passes(NamedTuple):
    """How the weights are used.

    Attributes:
        order: their names in the order of the forward pass; those beside each other that multiply the same tensor are one
            list.
        uses: for each batch of this rank, how often it uses each weight.
    """

    order: list[list[str]]
    uses: list[Counter[str]]


def look_at_passes(network: Network, what: str) -> Passes:
    """Run all batches once, and say in which order the weights are used.

    Every rank has to call it, and each gets the same order.

    Raises:
        SparsityError: if a weight is never multiplied with an input on any rank; ``what`` is what needs it.
    """
    order: list[list[str]] = []
    parts: set[Part] = set()
    uses: list[Counter[str]] = []
    last: tuple[LayerInput, int] | None = None  # held, so that its place in memory is not used again

    def see(product: LayerInput) -> None:
        nonlocal last
        if not any(product.name in group for group in order):
            beside = last is not None and last[0].name in order[-1] and _same(last[0].source, product.source)
            if beside and last is not None and last[1] == product.source._version:
                order[-1].append(product.name)
            else:
                order.append([product.name])
        last = (product, product.source._version)
        uses[-1][product.name] += 1
        parts.add((product.name, *product.rows))

    with _watching(network, see):
        for batch in network.batches:
            uses.append(Counter())
            network.loss(network.model, batch)
    merged: list[list[str]] = []
    for theirs, more in of_all_ranks((order, parts)):
        known = {name for group in merged for name in group}
        merged += [group for group in ([name for name in each if name not in known] for each in theirs) if group]
        parts |= more
    _refuse_unseen(network, network.parameters, parts, what)
    return Passes(merged, uses)


def input_sums(
    network: Network,
    of_matrix: Callable[[Tensor], Tensor],
    what: str,
    names: Collection[str] | None = None,
    uses: Sequence[Mapping[str, int]] | None = None,
) -> dict[Part, Tensor]:
    """Add up ``of_matrix`` of every matrix (tokens or positions, inputs) that weights are multiplied with.

    Every rank has to call it, and each gets the sums over all of them.

    Args:
        network: whose batches to run, in eval mode and without gradients.
        of_matrix: makes something of a matrix, in single precision, or in double if the weight is.
        what: what needs the sums, for a message.
        names: of which weights; None is all.
        uses: how often each batch uses each weight; a pass then ends where the last of ``names`` has got its input.

    Raises:
        SparsityError: if one of the weights is never multiplied with an input on any rank, or sums are not finite.
    """
    weights = network.parameters if names is None else {name: network.parameters[name] for name in names}
    sums: dict[Part, Tensor] = {}
    left = 0

    def see(product: LayerInput) -> None:
        nonlocal left
        if product.name not in weights:
            return
        wide = torch.promote_types(weights[product.name].dtype, torch.float32)
        for matrix in product.matrices():
            part = of_matrix(matrix.detach().to(wide))
            key = (product.name, *product.rows)
            sums[key] = sums[key].add_(part) if key in sums else part
        left -= 1
        if left == 0:
            raise _Enough

    with _watching(network, see):
        for number, batch in enumerate(network.batches):
            left = -1 if uses is None else sum(uses[number][name] for name in weights)
            if left:
                with suppress(_Enough):
                    network.loss(network.model, batch)
    found = _over_ranks(sums, weights)
    _refuse_unseen(network, weights, found, what)
    return found


def _refuse_unseen(network: Network, names: Collection[str], seen: Collection[Part], what: str) -> None:
    """Raise a SparsityError unless every row of the weights was ``seen`` with an input, which ``what`` needs."""
    rows: dict[str, set[int]] = {name: set() for name in names}
    for name, first, last in seen:
        rows[name].update(range(first, last))
    turned = inputs_first(network.parameters)
    unseen = [name for name in names if len(rows[name]) < network.parameters[name].shape[name in turned]]
    if unseen:
        raise SparsityError(
            f"{what} needs the inputs of every weight, and {unseen[0]!r} is not multiplied with one as it is, its outputs"
            " along dimension 0 (a transposed convolution, a fused recurrent layer, an embedding, experts in one tensor), or "
            f"the batches do not reach it: leave such weights out with exclude={unseen}"
        )


class _Enough(BaseException):
    """Ends a forward pass; no ``except Exception`` in a model is to catch it."""


@contextmanager
def _watching(network: Network, see: Callable[[LayerInput], None]) -> Iterator[None]:
    """Watch the forward passes that run inside, in eval mode and without gradients."""
    network.model.eval()
    with torch.no_grad(), LayerInputs(network.parameters, see):
        yield


def _same(one: Tensor, other: Tensor) -> bool:
    return (one.data_ptr(), one.shape, one.stride()) == (other.data_ptr(), other.shape, other.stride())


def _over_ranks(sums: dict[Part, Tensor], weights: Mapping[str, Tensor]) -> dict[Part, Tensor]:
    shapes: dict[Part, torch.Size] = {}
    for theirs in of_all_ranks({key: part.shape for key, part in sums.items()}):
        shapes |= {key: shape for key, shape in theirs.items() if key not in shapes}
    found = {}
    for key, shape in shapes.items():
        wide = torch.promote_types(weights[key[0]].dtype, torch.float32)
        found[key] = sums.pop(key) if key in sums else weights[key[0]].new_zeros(shape, dtype=wide)
        add_up([found[key]])
        if not found[key].isfinite().all():
            raise SparsityError(
                f"the inputs of {key[0]!r} are not finite, or their squares are not: look at the batches, and whether the "
                "training has diverged"
            )
    return found
