"""A small transformer of images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_sparse.errors import SparsityError, check_count
from lightning_sparse.models.networks import check_shape, sizes
from lightning_sparse.models.texts import Block

_HEADS, _EACH = 3, 64  # 192 dimensions


class VisionTransformer(nn.Module):
    """Patches as tokens with learned places, a token of the class before them, pre-norm blocks, and a layer on its token."""

    def __init__(self, channels: int, patch: int, places: int, dimensions: int, layers: int, classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, dimensions, patch, stride=patch)
        self.token = nn.Parameter(torch.zeros(1, 1, dimensions))
        self.places = nn.Parameter(torch.empty(1, places + 1, dimensions))
        self.blocks = nn.ModuleList(Block(dimensions, _HEADS, rotary=False, causal=False) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(dimensions), nn.Linear(dimensions, classes)
        nn.init.trunc_normal_(self.places, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, channels, height, width) to logits (n, classes)."""
        patches = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(images), -1, -1).to(patches.dtype), patches], dim=1) + self.places
        there = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        for block in self.blocks:
            x = block(x, there)
        logits: Tensor = self.head(self.norm(x[:, 0]))
        return logits


def vit_tiny(
    shape: Sequence[int], classes: int, width: float = 1.0, *, patch: int = 4, layers: int = 12
) -> VisionTransformer:
    """ViT-Ti (Touvron et al. 2021, arXiv 2012.12877) in patches of 4x4 pixels: three heads of 64 dimensions; 5.4 M weights.

    Args:
        shape: (channels, height, width) of an image.
        classes: number of classes.
        width: factor of the dimensions, above 0.
        patch: side of a patch, in pixels, which divides the image's height and width.
        layers: number of blocks.

    Example:
        >>> net = vit_tiny((3, 32, 32), 10)
        >>> round(sum(parameter.numel() for parameter in net.parameters()) / 1e6, 2)
        5.36
    """
    check_shape(shape, 1, classes)
    check_count("layers", layers, most=256, write=12)
    if shape[1] % check_count("patch", patch, write=4) or shape[2] % patch:
        raise SparsityError(
            f"patch={patch} does not divide images of {shape[1]}x{shape[2]} pixels: write patch={_divisor(shape)}"
        )
    (each,) = sizes(width, _EACH)
    places = (shape[1] // patch) * (shape[2] // patch)
    return VisionTransformer(shape[0], patch, places, _HEADS * each, layers, classes)


def _divisor(shape: Sequence[int]) -> int:
    return next(side for side in (4, 2, 1) if shape[1] % side == shape[2] % side == 0)
