"""How fast a classifier's probabilities change when the image moves by a small part of a pixel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_sparse.anatomy.isolation import device_of
from lightning_sparse.measure.classifier import batches

STEP = 0.05  # pixels, either way
BORDER = 4  # pixels of black: a Fourier shift brings in at one side what it moves out at the other


def translation_error(classifier: nn.Module, images: Tensor, temperature: float, batch_size: int) -> Tensor:
    """Norm of d probabilities / d (vertical, horizontal) shift of each image, (n,), float64, in probability a pixel.

    By central differences of Fourier shifts (after Gruver et al. 2022), of softmax(logits / temperature): without the
    temperature that calibrates a model, the number goes with the scale of its logits. The classifier is inside ``untouched``.
    """
    found = []
    with torch.no_grad():
        for (part,) in batches(batch_size, device_of(classifier), images):
            squares = torch.zeros(len(part), dtype=torch.float64)
            for down, right in ((STEP, 0.0), (0.0, STEP)):
                ahead, behind = (
                    torch.softmax(classifier(shifted(part, sign * down, sign * right)).double() / temperature, 1)
                    for sign in (1, -1)
                )
                squares += ((ahead - behind) / (2 * STEP)).square().sum(1).cpu()
            found.append(squares.sqrt())
    return torch.cat(found)


def shifted(images: Tensor, down: float, right: float) -> Tensor:
    """Move images (n, C, H, W) by parts of a pixel, zeros moving in; sharp edges ring a little beyond [0, 1].

    Example:
        >>> dot = torch.zeros(1, 1, 3, 3)
        >>> dot[0, 0, 0, 1] = 1.0
        >>> shifted(dot, 1.0, -1.0)[0, 0].round().abs().tolist()
        [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    height, width = images.shape[-2:]
    padded = nn.functional.pad(images, (BORDER,) * 4)
    rows, columns = padded.shape[-2:]
    turns = down * torch.fft.fftfreq(rows, device=images.device)[:, None]
    turns = turns + right * torch.fft.rfftfreq(columns, device=images.device)
    waves = torch.fft.rfft2(padded) * torch.exp(-2j * torch.pi * turns)
    moved: Tensor = torch.fft.irfft2(waves, s=(rows, columns))
    return moved[..., BORDER : BORDER + height, BORDER : BORDER + width]
