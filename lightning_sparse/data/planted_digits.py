"""Digits in a larger black image, so that the pixels that decide the class are known; with a shortcut if wanted.

Each image is 16x16: one of scikit-learn's 8x8 digits fills one of its four quadrants, and the class is the digit. A shortcut
is a white patch of 3x3 in the quadrant diagonally opposite, at one of ten places, one for each class.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_sparse.data.datasets import stratified_split
from lightning_sparse.errors import SparsityError, check_seed, check_share
from lightning_sparse.extras import need

SIDE = 16
_HALF = 8
_PATCH = 3
# Ten places of a 3x3 patch in a quadrant; they overlap, but all differ.
_PLACES = [(top, left) for top in (0, 2, 5) for left in (0, 2, 3, 5)][:10]


@dataclass(frozen=True)
class Planted:
    """Images in which the pixels that decide the class are known.

    Attributes:
        images: (n, 1, 16, 16), floats in [0, 1].
        labels: (n,), the digits.
        truth: masks (n, 16, 16), booleans: ``"quadrant"``, where the digit is; ``"ink"``, its pixels above 0; ``"patch"``,
            the shortcut: empty for an image without one, and missing if no shortcut was asked for.
    """

    images: Tensor
    labels: Tensor
    truth: dict[str, Tensor]


def planted(seed: int = 0, shortcut: float = 0.0) -> tuple[Planted, Planted]:
    """Make the training and the test images, four fifths and one fifth of each class of the 1797 digits.

    Args:
        seed: of the split, the quadrants, and the patches.
        shortcut: share of the training images, in [0, 1], with a patch at the place of their class; the others have none.
            Above 0, every test image has a patch at the place of a random class, which says nothing about its own.

    Returns:
        Training images, of which validation is still to be cut, and test images.

    Raises:
        SparsityError: if ``shortcut`` is not a share, or ``seed`` no integer from 0 to 2**32 - 1.

    Example:
        >>> train, test = planted(shortcut=0.5)
        >>> train.images.shape, len(test.labels), int(train.truth["patch"].flatten(1).any(1).sum())
        (torch.Size([1437, 1, 16, 16]), 360, 718)
    """
    check_share("shortcut", shortcut)
    seed = check_seed(seed)
    bunch = need("sklearn.datasets").load_digits()
    digits, labels = torch.tensor(bunch.images).float() / 16, torch.tensor(bunch.target)
    generator = torch.Generator().manual_seed(seed)
    made = []
    for name, chosen in zip(("train", "test"), stratified_split(labels, 0.2, seed), strict=True):
        n = len(chosen)
        quadrants = torch.empty_like(chosen)
        for label in range(10):
            # Class by class, or the quadrant would say something about the class.
            places_of_class = (labels[chosen] == label).nonzero().squeeze(1)
            quadrants[places_of_class] = torch.randperm(len(places_of_class), generator=generator) % 4
        if name == "train":
            places = labels[chosen].clone()
            places[torch.randperm(n, generator=generator)[round(shortcut * n) :]] = -1
        else:
            places = torch.randint(10, (n,), generator=generator)
        made.append(plant(digits[chosen], labels[chosen], quadrants, places if shortcut else None))
    return made[0], made[1]


def plant(digits: Tensor, labels: Tensor, quadrants: Tensor, places: Tensor | None = None) -> Planted:
    """Put digits into quadrants, and patches into the opposite quadrants.

    Args:
        digits: (n, 8, 8), floats in [0, 1].
        labels: (n,), their classes.
        quadrants: (n,), 0 to 3: top left, top right, bottom left, bottom right.
        places: (n,), the class at whose place the patch is, or -1 for no patch; None for no patch anywhere.

    Raises:
        SparsityError: if an argument has another shape, or holds other numbers.

    Example:
        >>> made = plant(torch.ones(1, 8, 8), torch.tensor([7]), torch.tensor([3]), torch.tensor([0]))
        >>> made.images[0, 0, :3, :3].sum(), made.images[0, 0, 8:, 8:].sum()
        (tensor(9.), tensor(64.))
    """
    n = len(_tensor("digits", digits, "floating point", (None, _HALF, _HALF)))
    _tensor("labels", labels, "integers", (n,))
    _within("quadrants", _tensor("quadrants", quadrants, "integers", (n,)), 0, 3)
    if places is not None:
        _within("places", _tensor("places", places, "integers", (n,)), -1, len(_PLACES) - 1)
    canvas = torch.zeros(n, SIDE, SIDE)
    quadrant = torch.zeros(len(digits), SIDE, SIDE, dtype=torch.bool)
    for i, where in enumerate(quadrants.tolist()):
        top, left = _HALF * (where // 2), _HALF * (where % 2)
        canvas[i, top : top + _HALF, left : left + _HALF] = digits[i]
        quadrant[i, top : top + _HALF, left : left + _HALF] = True
    truth = {"quadrant": quadrant, "ink": canvas > 0}
    if places is not None:
        truth["patch"] = patches(quadrant, places)
        canvas[truth["patch"]] = 1.0
    return Planted(canvas.unsqueeze(1), labels, truth)


def patches(quadrant: Tensor, places: Tensor) -> Tensor:
    """Mark the patches of the classes in ``places`` (n,), -1 for none; both masks are (n, 16, 16), booleans."""
    found = torch.zeros_like(quadrant)
    for i, place in enumerate(places.tolist()):
        if place >= 0:
            # The first pixel of the opposite quadrant: 0 becomes 8, and 8 becomes 0.
            top, left = (_HALF - quadrant[i].nonzero()[0]).tolist()
            down, right = _PLACES[place]
            found[i, top + down : top + down + _PATCH, left + right : left + right + _PATCH] = True
    return found


def shortcut_versions(
    images: Tensor, labels: Tensor, quadrant: Tensor, *, seed: int = 0
) -> dict[str, tuple[Tensor, Tensor]]:
    """Give each image with the patch of its own class, without a patch, and with that of another class.

    Args:
        images: (n, 1, 16, 16), with or without a patch, as ``ImageData.split`` gives them.
        labels: (n,).
        quadrant: (n, 16, 16), booleans: where the digits are, as ``ImageData.truth`` gives it.
        seed: draws the other class.

    Returns:
        ``"aligned"``, ``"absent"`` and ``"conflicting"``: images and labels, for
        :func:`~lightning_sparse.measure.measure_shortcut`.

    Raises:
        SparsityError: if the shapes of images, labels and masks do not match.

    Example:
        >>> _, test = planted()
        >>> versions = shortcut_versions(test.images, test.labels, test.truth["quadrant"])
        >>> {name: round(float(images.sum() - test.images.sum())) for name, (images, _) in versions.items()}
        {'aligned': 3240, 'absent': 0, 'conflicting': 3240}
    """
    n = len(_tensor("images", images, "floating point", (None, 1, SIDE, SIDE)))
    _within("labels", _tensor("labels", labels, "integers", (n,)), 0, len(_PLACES) - 1)
    _tensor("quadrant", quadrant, "booleans", (n, SIDE, SIDE))
    if not bool(quadrant.flatten(1).any(dim=1).all()):
        raise SparsityError("quadrant marks no pixel of an image: give truth['quadrant'] of the planted digits")
    seed = check_seed(seed)
    own = labels.cpu()
    other = (own + torch.randint(1, 10, own.shape, generator=torch.Generator().manual_seed(seed))) % 10
    absent = images * quadrant.unsqueeze(1).to(images.device)
    versions = {"aligned": own, "absent": torch.full_like(own, -1), "conflicting": other}
    made = {}
    for name, places in versions.items():
        patch = patches(quadrant.cpu(), places).unsqueeze(1).to(images.device)
        made[name] = (absent.masked_fill(patch, 1.0), labels)
    return made


def _tensor(name: str, value: object, kind: str, shape: tuple[int | None, ...]) -> Tensor:
    """Return a tensor of that kind and shape, in which None is any number of images, or raise a SparsityError."""
    if isinstance(value, Tensor) and value.dim() == len(shape):
        floats, flags = value.is_floating_point(), value.dtype == torch.bool
        kinds = {"floating point": floats, "booleans": flags, "integers": not (floats or flags or value.is_complex())}
        if kinds[kind] and all(want in (None, got) for want, got in zip(shape, value.shape, strict=True)):
            return value
    given = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
    wanted = str(tuple("n" if size is None else size for size in shape)).replace("'", "")
    raise SparsityError(f"{name} is {given}, not {kind} of shape {wanted}: give those of the planted digits")


def _within(name: str, values: Tensor, low: int, high: int) -> None:
    if len(values) and not low <= int(values.min()) <= int(values.max()) <= high:
        raise SparsityError(
            f"{name} reach from {int(values.min())} to {int(values.max())}: give integers in [{low}, {high}]"
        )
