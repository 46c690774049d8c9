"""A trained sparse network in one small file, exact to the bit: masks and values entropy coded."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from lightning_sparse.anatomy.copies import copied
from lightning_sparse.anatomy.factors import factor_names
from lightning_sparse.anatomy.layers import is_layer
from lightning_sparse.anatomy.living import living_of
from lightning_sparse.anatomy.modules import check_module
from lightning_sparse.anatomy.parameters import names_of
from lightning_sparse.engine.masks import Masks
from lightning_sparse.errors import SparsityError, check_choice
from lightning_sparse.export.narrow import narrow_to
from lightning_sparse.export.packed_file import CODES, Packed, check_path, read_packed, undecodable, write_packed
from lightning_sparse.export.packed_parts import decode_part, encode_part, name_of, tensor_of, words_of
from lightning_sparse.extras import need
from lightning_sparse.measure.arrays import check_weight_masks

VALUES = ("float32", *CODES[1:])


def save_packed(
    model: nn.Module, masks: Mapping[str, Tensor] | None, path: str | Path, values: str = "float32"
) -> None:
    """Write all of a network's state into one small file, from which :func:`load_packed` loads it again.

    Masks are predicted from the densities of rows and columns, and numbers from those before them; a range coder stores
    what is left. Of a LeNet-300-100 trained on MNIST a file takes .090 of dense float32 at a sparsity of .9 and .047 at
    .95, nearly all of it the last bits of float32, which nothing predicts; .039 and .021 with ``values="bfloat16"``, at
    the same accuracy. Saving and loading take about a second each for a million living weights, on one core.

    Args:
        model: any module; it is not run. Everything in its ``state_dict`` is stored: weights, biases, norms, and buffers
            of integers and booleans too.
        masks: by parameter name, True where a connection lives, such as :class:`~lightning_sparse.Masks`; without them
            the zeros of the weights of Linear and Conv layers are dead. A dead -0.0 comes back as 0.0.
        path: of the file, such as ``"network.packed"``; what is there is replaced, in one step.
        values: ``"float32"`` keeps every number as it is, to the bit, whatever its type. ``"bfloat16"`` rounds every
            floating-point number of more than 16 bits to bfloat16. ``"int8"`` to ``"int2"`` round the living weights of
            each layer to 2^n evenly spaced levels from the lowest to the highest, and what else is floating-point to
            bfloat16. (Of a ResNet-20 at 4 bits and .95, biases, norms and buffers would be two fifths of a file that kept
            them as they are; rounding them moves its logits by less than a tenth of what the levels do.) The loaded model
            is equal, to the bit, to the model so rounded.

    Raises:
        SparsityError: if the masks do not fit the model, a dead connection is not zero, a number cannot be rounded as
            asked (infinite, or too large for bfloat16), something in the state is no ordinary tensor, or the file cannot
            be written.

    Example:
        >>> import tempfile
        >>> net = nn.Linear(100, 50)
        >>> _ = net.weight.data.mul_(torch.rand(50, 100) < 0.1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_packed(net, None, f"{folder}/net.packed")
        ...     again = nn.Linear(100, 50)
        ...     masks = load_packed(f"{folder}/net.packed", again)
        >>> bool((again.weight == net.weight).all()), bool((masks["weight"] == (net.weight != 0)).all())
        (True, True)
    """
    check_module(model)
    check_choice("values", values, VALUES)
    path = check_path(path)
    need("constriction")
    state, same = _state(model)
    sparse = _sparse(model, masks)
    for name in sparse:
        if name not in state:
            raise SparsityError(
                f"{name!r} is not in model.state_dict(): a hook of the model leaves it out or renames it"
            )
    coded = {name: _coded(tensor, values, name in sparse) for name, tensor in state.items()}
    for name, tensor in state.items():
        _check_rounds(name, tensor, coded[name])
    groups: dict[tuple[torch.dtype, str], list[str]] = {}
    for name in [name for name in state if name not in sparse]:
        groups.setdefault((state[name].dtype, coded[name]), []).append(name)
    together = [[name] for name in sparse] + list(groups.values())
    parts, check = [], 0
    for names in together:
        tensors = [state[name] for name in names]
        part, words = encode_part(names, tensors, coded[names[0]], sparse.get(names[0]))
        parts.append(part)
        check = zlib.crc32(words.tobytes(), check)
    write_packed(path, Packed(parts, same, check))


def load_packed(path: str | Path, model: nn.Module) -> Masks:
    """Load what :func:`save_packed` wrote into a network of the same architecture, in place, and return its masks.

    The file is checked as a whole, decoded and compared with the model before anything in the model changes. Its numbers
    are copied into the model's own tensors, on their devices, as ``model.load_state_dict`` does. Reading a file runs no
    code from it.

    Args:
        path: of the file.
        model: a module with the same names, shapes and types in its ``state_dict``. The file of a network that
            :func:`~lightning_sparse.export.shrink` made (with ``fold=False``, which adds no bias) or the callback
            :class:`~lightning_sparse.Shrink` makes the layers of a wider model as narrow.

    Returns:
        The masks of the sparse weights.

    Raises:
        SparsityError: if it is no packed file, or one that is truncated, damaged or of a newer format; or if the model has
            other names, shapes or types. The model is then as it was.

    Example:
        >>> load_packed("no/such.packed", nn.Linear(2, 3))
        Traceback (most recent call last):
        lightning_sparse.SparsityError: path='no/such.packed' cannot be read ([Errno 2] No such file or directory: 'no/such.packed'): give the path of a file that save_packed wrote
    """  # noqa: E501
    check_module(model)
    path = check_path(path)
    need("constriction")
    packed = read_packed(path)
    narrower = _narrower(packed, _state(model)[0])
    like = model
    if narrower:
        like = copied(model).eval()  # the model changes only when everything has been read
        narrow_to(like, narrower)
    state, same = _state(like)
    state |= {name: state[owner] for name, owner in same.items()}
    _check_fits(path, packed, state)
    tensors: dict[str, Tensor] = {}
    masks, check = {}, 0
    for part in packed.parts:
        dtype, at = state[part.names[0]].dtype, 0
        try:
            words, alive = decode_part(part, dtype)
        except Exception as error:  # whatever a decoder raises on what no encoder has written
            raise undecodable(path, packed) from error
        check = zlib.crc32(words.tobytes(), check)
        for name in part.names:
            shape, size = state[name].shape, state[name].numel()
            tensors[name], at = tensor_of(words[at : at + size], dtype).reshape(shape), at + size
        if part.sparse:
            weight = state[part.names[0]]
            masks[part.names[0]] = torch.from_numpy(alive).reshape(weight.shape).to(weight.device)
    if check != packed.check:
        raise undecodable(path, packed)
    tensors |= {name: tensors[owner] for name, owner in packed.same.items()}
    _check_tied(tensors, same)
    if narrower:
        narrow_to(model, narrower)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise SparsityError(f"the model does not take its own state ({error}): give a newly built one") from error
    return Masks(masks, {name: state[name].element_size() for name in masks})


def _narrower(packed: Packed, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The shapes of a file whose layers are narrower than the model's, as tensors without content; otherwise nothing."""
    there = {name: torch.empty(shape, device="meta") for name, (shape, _) in packed.tensors().items()}
    if there.keys() != state.keys() or any(value.dim() != state[name].dim() for name, value in there.items()):
        return {}
    pairs = [(a, b) for name, value in there.items() for a, b in zip(value.shape, state[name].shape, strict=True)]
    return there if all(a <= b for a, b in pairs) and any(a < b for a, b in pairs) else {}


def _check_fits(path: Path, packed: Packed, state: Mapping[str, Tensor]) -> None:
    """Raise a SparsityError unless a file has the names, shapes and types of a model's state."""
    there = packed.tensors()
    here = {name: (list(tensor.shape), name_of(tensor.dtype)) for name, tensor in state.items()}
    if there.keys() != here.keys():
        name = next(name for name in [*there, *here] if name not in there or name not in here)
        which = "in the file and not in the model" if name in there else "in the model and not in the file"
        raise SparsityError(
            f"path={str(path)!r} is of another architecture: {name!r} is {which}; build the model as the one that was saved"
        )
    for name, (shape, dtype) in there.items():
        mine, kind = here[name]
        if shape != mine:
            raise SparsityError(
                f"path={str(path)!r} is of another architecture: {name!r} has shape {shape} in the file and {mine} in the "
                "model; give a model with the layers of the one that was saved"
            )
        if dtype != kind:
            raise SparsityError(
                f"path={str(path)!r} has {name!r} in {dtype}, and the model in {kind}: write model.to(torch.{dtype}) first"
            )


def _check_tied(tensors: Mapping[str, Tensor], same: Mapping[str, str]) -> None:
    """Raise a SparsityError if the file has two values for what is one tensor in the model."""
    for name, owner in same.items():
        if words_of(tensors[name]).tobytes() != words_of(tensors[owner]).tobytes():
            raise SparsityError(
                f"{name!r} and {owner!r} are one tensor in the model, and have different values in the file: build the "
                "model as the one that was saved, without this tie"
            )


def _state(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every tensor of a model's state once, by its first name, and which other names are which of these."""
    first: dict[int, str] = {}
    found, same = {}, {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        odd = _odd(name, tensor)
        if odd:
            raise SparsityError(f"{name!r} of the model's state is {odd}")
        owner = first.setdefault(id(tensor), name)
        if owner == name:
            found[name] = tensor.detach()
        else:
            same[name] = owner
    return found, same


def _odd(name: str, tensor: object) -> str:
    """What is wrong with something in a state, and what to do; empty if it is a tensor that can be stored."""
    if not isinstance(tensor, Tensor):
        extra = "let get_extra_state() return a tensor" if name.endswith("_extra_state") else "give it as it was before"
        return f"a {type(tensor).__name__}, no tensor: {extra}"
    if isinstance(tensor, UninitializedParameter):
        return "without a shape yet (a lazy layer): run one batch through the model first"
    if tensor.is_meta:
        return "on the device meta, without values: write model.to_empty(device='cpu') and load into that"
    if tensor.layout != torch.strided or tensor.is_quantized or _is_wrapped(tensor):
        return "no ordinary dense tensor (sparse, quantised or of another library): give the model as it was before"
    return ""


def _is_wrapped(tensor: Tensor) -> bool:
    """Whether it is a subclass that computes for itself, such as torchao's, whose values are in other tensors."""
    return type(tensor).__torch_dispatch__ != Tensor.__torch_dispatch__


def _sparse(model: nn.Module, masks: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    if masks is not None:
        check_weight_masks(masks, dict(model.named_parameters()))
        return {name: alive for name, (_, alive) in living_of(model, masks).items()}
    # Of frozen layers too: what is exported is often frozen, where sparsifiable() asks what can be trained.
    listed, parameters = names_of(model), dict(model.named_parameters())
    layers = [prefix for prefix, module in model.named_modules() if is_layer(module) and "weight" in module._parameters]
    names = [listed[f"{prefix}.weight".lstrip(".")] for prefix in layers] + [
        listed[name] for name in factor_names(model)
    ]
    return {name: parameters[name].detach() != 0 for name in names}


def _coded(tensor: Tensor, values: str, sparse: bool) -> str:
    """How the numbers of a tensor are stored: rounded, if that is asked for and saves bits."""
    if values == "float32" or not tensor.is_floating_point():
        return "exact"
    if sparse and values != "bfloat16":
        return values
    return "bfloat16" if tensor.element_size() > 2 else "exact"


def _check_rounds(name: str, tensor: Tensor, coded: str) -> None:
    if coded == "exact" or not tensor.numel():
        return
    if coded == "bfloat16":
        right = bool((tensor.bfloat16().isfinite() | ~tensor.isfinite()).all())
    else:
        right = bool((tensor.double().max() - tensor.double().min()).isfinite())
    if not right:
        raise SparsityError(
            f"values={coded!r} cannot hold {name!r}, which has infinite or very large numbers: write values='float32'"
        )
