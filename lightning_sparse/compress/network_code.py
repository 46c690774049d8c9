"""A whole network as one string of bytes, and back: all that a decoder needs beyond the dense architecture."""

from __future__ import annotations

import copy
import struct
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_sparse.anatomy.layers import is_conv1d
from lightning_sparse.compress.byte_string import PARTS, Reader, Writer
from lightning_sparse.compress.code_lengths import code_bits, mask_bits
from lightning_sparse.compress.coded_weight import CodedWeight, code_hashed, code_weight, from_half
from lightning_sparse.compress.draft import Draft
from lightning_sparse.compress.factorised import factorise_as
from lightning_sparse.compress.factors import Factors
from lightning_sparse.compress.levels import Levels
from lightning_sparse.compress.state import bytes_of, checksum, halves_and_exact, joined, tensors_of
from lightning_sparse.errors import SparsityError
from lightning_sparse.results.text_table import text_table

DENSE_BITS = 32
"""Of a number in the dense network that all sizes are shares of."""


@dataclass(frozen=True)
class Account:
    """What each part of a network takes, on real bytes and as an ideal code.

    Attributes:
        bytes: by weight and part; ``""`` is what belongs to no single weight.
        ideal: bits, by part, of a code that knows the frequencies: log2 C(N, k) + log2(N + 1) for a mask, the entropy of the
            symbols and log2 C(k + K - 1, K - 1) for how often each occurs, 16 for every other number.
        numbers: floating-point numbers of the dense network.
    """

    bytes: Mapping[str, Mapping[str, int]]
    ideal: Mapping[str, float]
    numbers: int

    @property
    def bits(self) -> int:
        """Of the whole string."""
        return 8 * sum(sum(parts.values()) for parts in self.bytes.values())

    @property
    def share(self) -> float:
        """Of the dense network in float32."""
        return self.bits / (DENSE_BITS * self.numbers)

    @property
    def ideal_bits(self) -> float:
        """Of all parts."""
        return sum(self.ideal.values())

    def part(self, name: str) -> int:
        """Bits of one part of the string, all weights together."""
        return 8 * sum(parts.get(name, 0) for parts in self.bytes.values())

    def table(self) -> str:
        """Bytes by weight and part, as text."""
        rows: list[tuple[str, ...]] = [("weight", *PARTS, "bytes")]
        named = {**{name: parts for name, parts in self.bytes.items() if name}, "(network)": self.bytes.get("", {})}
        for name, parts in named.items():
            rows.append((name, *(str(parts.get(part, 0)) for part in PARTS), str(sum(parts.values()))))
        rows.append(("total", *(str(self.part(part) // 8) for part in PARTS), str(self.bits // 8)))
        rows.append(
            ("ideal", *(f"{self.ideal.get(part, 0.0) / 8:.0f}" for part in PARTS), f"{self.ideal_bits / 8:.0f}")
        )
        said = f"{self.share:.4f} of float32 ({1 / self.share:.1f} times smaller), {2 * self.share:.4f} of float16"
        return f"{text_table(rows, '<' + '>' * (len(PARTS) + 1))}\n{said}"


def encode_network(
    model: nn.Module,
    alive: Mapping[str, Tensor],
    levels: Mapping[str, Levels],
    structure: Sequence[Factors] = (),
    *,
    numbers: int,
    seeds: Mapping[str, int] = MappingProxyType({}),
    width: float | None = None,
    entropy: bool = True,
) -> tuple[bytes, Account]:
    """Write a network down, and count what each part takes.

    Args:
        model: the network; weights that are not at their levels, or not in 16 bits, are rounded in the string alone.
        alive: which connections of the weights live; other tensors are kept whole, floating-point ones in 16 bits.
        levels: of those weights that have any.
        structure: layers that are factorised.
        numbers: floating-point numbers of the dense network, for the account.
        seeds: of weights that are hashed.
        width: of a narrower architecture than the dense one.
        entropy: code each stream as short as can be, else at a fixed width.
    """
    writer, state = Writer(entropy), tensors_of(model)
    coded = coded_weights(model, alive, levels, seeds)
    writer.number(int(entropy))
    writer.number(int(width is not None))
    if width is not None:
        writer.pieces.append(("structure", "", struct.pack("<d", width)))
    writer.number(len(structure), "structure")
    for factors in structure:
        for number in factors.to_numbers():
            writer.number(number, "structure")
    chosen = np.packbits([name in coded for name in state]).tobytes()
    writer.pieces.append(("header", "", struct.pack("<I", checksum(state)) + chosen))
    for name, weight in coded.items():
        writer.weight(name, weight)
    halves, exact = halves_and_exact(state, coded)
    kept = {id(tensor) for tensor in exact}
    writer.pieces.append(("header", "", np.packbits([id(tensor) in kept for tensor in state.values()]).tobytes()))
    writer.halves(joined(halves).astype(np.float16).view(np.uint16), "other", "")
    writer.stream(zlib.compress(b"".join(bytes_of(tensor) for tensor in exact), 9), "other", "")
    content = writer.content()
    found: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for part, name, piece in writer.pieces:
        found[name][part] += len(piece)
    found[""]["header"] += 8
    others = 16 * sum(t.numel() for t in halves) + 8 * sum(t.nbytes for t in exact if t.is_floating_point())
    return content, Account(found, ideal_parts(coded.values(), others, structure, width), numbers)


def encode_draft(draft: Draft, numbers: int) -> tuple[bytes, Account]:
    """Write a draft down."""
    return encode_network(
        draft.model,
        draft.masks(),
        draft.levels,
        draft.structure,
        numbers=numbers,
        seeds=draft.seeds,
        width=draft.width,
        entropy=draft.entropy,
    )


def ideal_bits(draft: Draft) -> float:
    """About what :func:`encode_draft` would take, in no time."""
    coded = coded_weights(draft.model, draft.masks(), draft.levels, draft.seeds)
    halves, exact = halves_and_exact(tensors_of(draft.model), coded)
    others = 16 * sum(t.numel() for t in halves) + 8 * sum(t.nbytes for t in exact if t.is_floating_point())
    return sum(ideal_parts(coded.values(), others, draft.structure, draft.width).values())


def decode_network(content: bytes, model: nn.Module | Callable[[float], nn.Module]) -> nn.Module:
    """Build the network that a string describes.

    Args:
        content: what :func:`encode_network` wrote.
        model: the dense architecture, with any weights; it is left as it was. For a narrower one, what makes it of a width.

    Returns:
        A copy of the model with the layers and the state that the string describes.

    Raises:
        SparsityError: if it is no such string, a damaged one, or one of an architecture with other names or shapes; what
            has no tensor, such as an activation, cannot be told.
    """
    reader = Reader(content)
    try:
        reader.set_entropy(bool(reader.number()))
        model = _architecture(struct.unpack("<d", reader.raw(8))[0] if reader.number() else None, model)
        factorise_as(model, [Factors.from_numbers(reader, model) for _ in range(reader.number())])
        state = tensors_of(model)
        _let_be_written(state.values())
        if struct.unpack("<I", reader.raw(4))[0] != checksum(state):
            raise ValueError("it has tensors of other names or shapes")
        bits = reader.raw(-(-len(state) // 8))
        chosen = np.unpackbits(np.frombuffer(bits, np.uint8), count=len(state)).astype(bool)
        names = [name for name, coded in zip(state, chosen, strict=True) if coded]
        turned = _inputs_first(model)
        found = {name: reader.weight(state[name].shape, name, name in turned).decode() for name in names}
        kept = np.unpackbits(np.frombuffer(reader.raw(-(-len(state) // 8)), np.uint8), count=len(state)).astype(bool)
        others = [tensor for tensor, exact in zip(state.values(), kept, strict=True) if exact]
        floats = [t for (name, t), exact in zip(state.items(), kept, strict=True) if name not in found and not exact]
        values = torch.from_numpy(from_half(reader.halves(sum(t.numel() for t in floats)), "float16"))
        plain = zlib.decompress(reader.stream())
        if not reader.ended() or len(plain) != sum(t.nbytes for t in others):
            raise ValueError("the string is longer or shorter than the architecture needs")
    except SparsityError:
        raise
    except Exception as error:
        raise SparsityError(
            f"content does not fit model={type(model).__name__} ({error}): give the dense architecture that was compressed"
        ) from error
    with torch.no_grad():
        for name, weight in found.items():
            state[name].copy_(weight)
        at = 0
        for tensor in floats:
            tensor.copy_(values[at : at + tensor.numel()].reshape(tensor.shape))
            at += tensor.numel()
        at = 0
        for tensor in others:
            piece = (
                torch.frombuffer(bytearray(plain[at : at + tensor.nbytes]), dtype=torch.uint8)
                if tensor.nbytes
                else None
            )
            if piece is not None:
                tensor.copy_(piece.view(tensor.dtype).reshape(tensor.shape))
            at += tensor.nbytes
    return model


def _let_be_written(tensors: Iterable[Tensor]) -> None:
    """Give expanded tensors memory for all of their numbers."""
    for tensor in tensors:
        if 0 in tensor.stride():
            tensor.data = tensor.data.contiguous()


def _architecture(width: float | None, model: Any) -> nn.Module:
    if width is None and isinstance(model, nn.Module):
        return copy.deepcopy(model)
    if width is None or isinstance(model, nn.Module):
        what = (
            "has no width of its own: give the network" if width is None else f"has width {width:g}: give make(width)"
        )
        raise SparsityError(f"model={type(model).__name__}, and the architecture of this content {what}")
    made: nn.Module = model(width)
    return made


def coded_weights(
    model: nn.Module,
    alive: Mapping[str, Tensor],
    levels: Mapping[str, Levels],
    seeds: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, CodedWeight]:
    """Each weight that has a mask or levels, as a decoder gets it, in the order of the model's state."""
    found, turned = {}, _inputs_first(model)
    for name, tensor in tensors_of(model).items():
        if name in alive or name in levels:
            lives = alive.get(name, torch.ones_like(tensor, dtype=torch.bool))
            if name in seeds:
                found[name] = code_hashed(name, lives, levels[name], seeds[name], name in turned)
            else:
                found[name] = code_weight(tensor, lives, levels.get(name), name in turned)
    return found


def _inputs_first(model: nn.Module) -> set[str]:
    """Names of the weights whose outputs are along dimension 1."""
    return {f"{name}.weight".lstrip(".") for name, module in model.named_modules() if is_conv1d(module)}


def ideal_parts(
    coded: Iterable[CodedWeight], others: int, structure: Sequence[Factors], width: float | None = None
) -> dict[str, float]:
    """Bits of an ideal code, by part; a codebook that several weights share is counted once."""
    parts, told = dict.fromkeys(PARTS, 0.0), set()
    for weight in coded:
        parts["mask"] += mask_bits(weight.alive.size, int(weight.alive.sum()))
        if weight.levels is None:
            parts["values"] += 16.0 * len(weight.symbols)
            continue
        parts["values"] += code_bits(weight.symbols, weight.levels.count) if weight.seed is None else 32
        numbers = weight.levels.numbers()
        if numbers.tobytes() not in told:
            parts["levels"] += 16.0 * numbers.size
        told.add(numbers.tobytes())
    parts["other"] = float(others)
    parts["structure"] = 16.0 * (sum(factors.numbers() for factors in structure) + (width is not None))
    return parts
