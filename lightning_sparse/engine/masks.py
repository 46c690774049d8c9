"""Masks: which connections live, by parameter name."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_sparse.anatomy.countable import countable
from lightning_sparse.anatomy.modules import check_module
from lightning_sparse.anatomy.patterns import check_patterns
from lightning_sparse.engine.checkpoints import check_masks, mentions, read_checkpoint
from lightning_sparse.engine.selection import count_true, counts_true
from lightning_sparse.errors import SparsityError, check_flag

# A weight is viewed as an integer. One bitwise AND with all bits or none turns any dead weight (NaN, infinite, negative)
# into plain 0.0, where a multiplication would leave NaN or -0.0.
_WORD = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Masks(Mapping[str, Tensor]):
    """A mapping of parameter name to boolean mask: True where a connection lives.

    It holds one integer a connection, with all bits set where it lives, and makes a boolean tensor when asked for one, on
    the device where the weight is then: when a fit on a GPU has ended, weights and masks are on the CPU.

    Args:
        masks: boolean tensors, of the parameters' shapes.
        itemsize: bytes of a weight, 1, 2, 4 or 8, by parameter name; 4 where a name is missing.
        compact: hold one byte a connection, instead of as many as a weight has. On a CPU :meth:`apply` costs the same
            either way, about a copy of the weights.

    Attributes:
        changes: how often a mask has been set.
        removed: connections that are no longer there, because the network was made narrower: how many dead ones, and how
            many living ones, which read dead channels. They count as what they were.

    Example:
        >>> masks = Masks({"w": torch.tensor([True, False, False, False])})
        >>> masks.sparsity, masks.living, masks.total
        (0.75, 1, 4)
        >>> weight = torch.tensor([1.0, -2.0, torch.nan, torch.inf])
        >>> masks.apply({"w": weight})
        >>> weight.tolist()
        [1.0, 0.0, 0.0, 0.0]
    """

    def __init__(
        self, masks: Mapping[str, Tensor], itemsize: Mapping[str, int] | None = None, compact: bool = False
    ) -> None:
        if not isinstance(masks, Mapping):
            raise SparsityError(
                f"masks={masks!r} is not a mapping: write Masks({{'weight': mask}}), with boolean tensors"
            )
        if not (itemsize is None or isinstance(itemsize, Mapping)) or any(
            s not in _WORD for s in (itemsize or {}).values()
        ):
            raise SparsityError(f"itemsize={itemsize!r} does not say 1, 2, 4 or 8 bytes by name: write {{'weight': 4}}")
        check_flag("compact", compact)
        self._itemsize = dict(itemsize or {})
        self._compact, self.changes, self.removed = compact, 0, (0, 0)
        self._words: dict[str, Tensor] = {}
        self._elsewhere: dict[tuple[str, torch.device], Tensor] = {}
        self._living: dict[str, int] = {}
        self._weights: dict[str, Tensor] = {}
        for name, mask in masks.items():
            self.set(name, mask)

    @classmethod
    def dense(cls, parameters: Mapping[str, Tensor], compact: bool = False) -> Masks:
        """Masks by which every connection of ``parameters`` lives."""
        everything = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in parameters.items()}
        masks = cls(everything, {name: weight.element_size() for name, weight in parameters.items()}, compact)
        masks._weights = dict(parameters)
        return masks

    def set(self, name: str, mask: Tensor) -> None:
        """Replace the mask of one parameter by a boolean tensor of its shape."""
        if not isinstance(mask, Tensor):
            raise SparsityError(f"the mask of {name!r} is {mask!r}: give a tensor of torch.bool")
        if mask.dtype != torch.bool:
            raise SparsityError(f"the mask of {name!r} has dtype {mask.dtype}: give torch.bool")
        self._set(name, mask, count_true(mask))

    def set_all(self, masks: Mapping[str, Tensor]) -> None:
        """Replace several masks, each as :meth:`set` does; a device is waited for once."""
        for name, living in counts_true(masks).items():
            self._set(name, masks[name], living)

    def _set(self, name: str, mask: Tensor, living: int) -> None:
        self._living[name] = living
        new, words = mask.view(torch.int8).neg(), self._words.get(name)  # True becomes -1: every bit set
        if words is None or words.shape != new.shape or words.device != new.device:
            self._words[name] = new if self._compact else new.to(_WORD[self._itemsize.get(name, 4)])
        else:
            words.copy_(new)
        self._elsewhere = {key: copy for key, copy in self._elsewhere.items() if key[0] != name}
        self.changes += 1

    def narrow(self, cuts: Mapping[str, Callable[[Tensor], Tensor]]) -> None:
        """Cut masks, by name, to the shapes of narrower parameters; what is cut off goes on to count, in ``removed``."""
        for name in [name for name in self if name in cuts]:
            size, living, (dead, read) = self._words[name].numel(), self.count(name), self.removed
            self.set(name, cuts[name](self[name]))
            gone, alive = size - self._words[name].numel(), living - self.count(name)
            self.removed = (dead + gone - alive, read + alive)

    def __getitem__(self, name: str) -> Tensor:
        words = self._words[name]
        device = self._weights.get(name, words).device
        if self._living[name] == words.numel():
            return torch.ones_like(words, dtype=torch.bool, device=device)
        return words.bool().to(device)

    def __iter__(self) -> Iterator[str]:
        return iter(self._words)

    def __len__(self) -> int:
        return len(self._words)

    def __getstate__(self) -> dict[str, Any]:
        """A copy has the masks alone, without the weights that they follow."""
        return {**vars(self), "_weights": {}, "_elsewhere": {}}

    def __repr__(self) -> str:
        return f"Masks({len(self)} parameters, {self.living} of {self.total} connections live)"

    @property
    def total(self) -> int:
        """Number of sparsifiable connections, those that were removed among them."""
        return sum(self.removed) + sum(words.numel() for words in self._words.values())

    @property
    def living(self) -> int:
        """Number of connections that live, or lived when they were removed."""
        return self.removed[1] + sum(self._living.values())

    def count(self, name: str) -> int:
        """Number of connections of one parameter that live."""
        return self._living[name]

    @property
    def sparsity(self) -> float:
        """Share of the connections that are dead, in [0, 1]."""
        return (self.total - self.living) / self.total if self.total else 0.0

    def layer_sparsity(self, leaked: Mapping[str, int] = MappingProxyType({})) -> dict[str, float]:
        """The sparsity of each parameter, less what of the dead weights is not zero."""
        return {n: 1.0 - (self._living[n] + leaked.get(n, 0)) / words.numel() for n, words in self._words.items()}

    def apply(self, parameters: Mapping[str, Tensor]) -> None:
        """Zero the dead connections of ``parameters`` in place, on any device: one pass, about the cost of a copy."""
        for name, weight in parameters.items():
            view, words = self.pair(name, weight)
            view &= words

    def pair(self, name: str, weight: Tensor) -> tuple[Any, Any]:
        """The weight as integers and its words, for one in-place AND."""
        words, view = self._words[name], weight.detach().view(_WORD[weight.element_size()])
        if words.device != view.device:
            if (name, view.device) not in self._elsewhere:
                self._elsewhere[name, view.device] = words.to(view.device)
            words = self._elsewhere[name, view.device]
        # numpy widens bytes as it reads them; torch would write them out first, which doubles the cost
        return (view.numpy(), words.numpy()) if view.is_cpu else (view, words)

    def checksum(self) -> str:
        """A hash of names, shapes and masks, equal on two ranks if and only if all of these are."""
        digest = hashlib.sha256()
        for name, packed in sorted(self.pack().items()):
            digest.update(f"{name}{packed['shape']}".encode() + packed["bits"].numpy().tobytes())
        return digest.hexdigest()

    def pack(self) -> dict[str, dict[str, Any]]:
        """The masks at one bit a connection, as tensors and lists that a checkpoint can hold."""
        return {name: pack_bits(words.to(torch.int8)) for name, words in self._words.items()}

    def unpack(self, packed: Mapping[str, Mapping[str, Any]]) -> None:
        """Take back what :meth:`pack` gave, on the present devices; if names or shapes differ, raise a SparsityError."""
        mine = {name: list(words.shape) for name, words in self._words.items()}
        theirs = {name: list(entry["shape"]) for name, entry in packed.items()}
        if mine != theirs:
            name = next(n for n in [*mine, *theirs] if mine.get(n) != theirs.get(n))
            raise SparsityError(
                f"the checkpoint's masks do not fit the model: {name!r} has shape {theirs.get(name)} there and "
                f"{mine.get(name)} here: resume with the same model and the same include and exclude"
            )
        for name, entry in packed.items():
            self.set(name, unpack_bits(entry).to(self._words[name].device))


def pack_bits(mask: Tensor) -> dict[str, Any]:
    """Pack a tensor of booleans, or of bytes that are zero or not, into a uint8 tensor of one bit an entry, with its shape.

    Example:
        >>> pack_bits(torch.tensor([True, False, True]))
        {'bits': tensor([160], dtype=torch.uint8), 'shape': [3]}
    """
    return {"bits": torch.from_numpy(np.packbits(mask.cpu().numpy().reshape(-1))), "shape": list(mask.shape)}


def unpack_bits(packed: Mapping[str, Any]) -> Tensor:
    """Undo :func:`pack_bits`.

    Example:
        >>> unpack_bits(pack_bits(torch.tensor([[True], [False]]))).tolist()
        [[True], [False]]
    """
    shape = list(packed["shape"])
    bits = np.unpackbits(packed["bits"].numpy(), count=int(np.prod(shape, dtype=np.int64)))
    return torch.from_numpy(bits.astype(bool)).reshape(shape)


def load_masks(checkpoint: str | Path | Mapping[str, Any]) -> Masks:
    """Read the masks from a Lightning checkpoint or an engine's ``state_dict``.

    Warns if weights in the checkpoint are not zero where its masks say that they are dead.

    Args:
        checkpoint: a path, or what ``torch.load`` returned for it.

    Raises:
        SparsityError: if it is no checkpoint, if it was cut, or if it holds no masks or damaged ones.

    Example:
        >>> load_masks(None)
        Traceback (most recent call last):
        lightning_sparse.SparsityError: checkpoint=None is no path and no dict: write load_masks("last.ckpt")
    """
    if isinstance(checkpoint, str | Path):
        try:
            content: Mapping[str, Any] = read_checkpoint(checkpoint)
        except UnpicklingError as error:
            if not mentions(checkpoint, "lightning_sparse"):
                raise _without_masks() from error
            raise SparsityError(
                f"{str(checkpoint)!r} holds objects that weights_only=True refuses (hyperparameters, perhaps): if you trust "
                "it, write load_masks(torch.load(path, weights_only=False))"
            ) from error
    elif isinstance(checkpoint, Mapping):
        content = checkpoint
    else:
        raise SparsityError(f'checkpoint={checkpoint!r:.60} is no path and no dict: write load_masks("last.ckpt")')
    callbacks = content.get("callbacks", {})
    states = (content, *(callbacks.values() if isinstance(callbacks, Mapping) else ()))
    masks: dict[str, Tensor] = {}
    dead = living = 0
    for state in states:
        if isinstance(state, Mapping) and "lightning_sparse" in state:
            check_masks(state)
            masks |= {name: unpack_bits(entry) for name, entry in state["masks"].items()}
            gone = state.get("removed", (0, 0))
            dead, living = dead + gone[0], living + gone[1]
    if not masks:
        raise _without_masks()
    weights = content.get("state_dict")
    say_if_alive(masks, weights if isinstance(weights, Mapping) else {})
    found = Masks(masks)
    found.removed = (dead, living)
    return found


def _without_masks() -> SparsityError:
    return SparsityError(
        "this checkpoint holds no masks: it was not saved by a Trainer with a sparsity callback, nor is it an engine's "
        "state_dict(); sparsity_of(model) counts the zeros of any model"
    )


def say_if_alive(masks: Mapping[str, Tensor], weights: Mapping[str, Any]) -> None:
    """Warn if weights of a checkpoint are not zero where its masks are False; raise a SparsityError if shapes differ."""
    for name, mask in masks.items():
        weight = weights.get(name)
        if not isinstance(weight, Tensor) or weight.layout != torch.strided:
            continue
        if weight.shape != mask.shape:
            raise SparsityError(
                f"the checkpoint's mask of {name!r} has shape {list(mask.shape)}, and its weights {list(weight.shape)}: "
                "they are of different models"
            )
        alive = count_true(weight.detach().cpu()[~mask] != 0)
        if alive:
            warnings.warn(
                f"{alive} weights of {name!r} in this checkpoint are not zero where its masks say that they are dead: "
                "something wrote to them after the masks. A training that goes on from it zeroes them; in a model, "
                "masks.apply({name: model.get_parameter(name) for name in masks}) does",
                stacklevel=3,
            )


def sparsity_of(model: nn.Module, include: list[str] | None = None, exclude: list[str] | None = None) -> float:
    """Share of exact zeros among the weights of any model, in [0, 1].

    A living weight may happen to be zero, so this can be a little above the share of masked connections.

    Args:
        model: any module. Its layers count whether they are trainable or frozen; quantised ones if their weights can be
            read (those of ``torch.ao`` and torchao), and rewritten ones (weight_norm, torch's prune) as they are used.
        include: shell-style patterns of parameter names to count; None takes the weights of Linear and Conv layers, and
            of transformers' Conv1D.
        exclude: patterns of names to leave out, applied after ``include``.

    Raises:
        SparsityError: if a pattern matches nothing, if nothing is left to count, or if a weight cannot be read.

    Example:
        >>> net = nn.Linear(2, 2).requires_grad_(False)
        >>> _ = net.weight.data.copy_(torch.tensor([[0.0, 1.0], [2.0, 0.0]]))
        >>> sparsity_of(net)
        0.5
    """
    check_module(model)
    weights = countable(model, check_patterns("include", include), check_patterns("exclude", exclude))
    return sum(count_true(weight == 0) for weight in weights.values()) / sum(w.numel() for w in weights.values())
