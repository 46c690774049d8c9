"""A recurrent network that reads an image row by row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_sparse.models.networks import check_shape, sizes


class RowGRU(nn.Module):
    """A GRU (Cho et al. 2014, in the form of ``torch.nn.GRU``) over the rows of an image, from the top, and a linear head.

    Its gates are Linear layers, so that whatever takes the weights of Linear layers (sparsity, compression, cost) takes
    them; it has second derivatives, and gradients in eval mode, on every device, which cuDNN's GRU has not.
    """

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.rows = nn.Linear(features, 3 * hidden)  # reset, update and new, as in torch.nn.GRU
        self.state = nn.Linear(hidden, 3 * hidden)
        self.head = nn.Linear(hidden, classes)
        for parameter in (*self.rows.parameters(), *self.state.parameters()):
            nn.init.uniform_(parameter, -(hidden**-0.5), hidden**-0.5)  # as torch.nn.GRU does

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, channels, height, width) to logits (n, classes)."""
        rows = self.rows(images.transpose(1, 2).flatten(2))  # (n, height, 3 * hidden)
        state = rows.new_zeros(len(images), self.hidden)
        for row in rows.unbind(1):
            reset, update, new = row.chunk(3, 1)
            past_reset, past_update, past_new = self.state(state).chunk(3, 1)
            kept = torch.sigmoid(update + past_update)
            proposed = torch.tanh(new + torch.sigmoid(reset + past_reset) * past_new)
            state = kept * state + (1 - kept) * proposed
        logits: Tensor = self.head(state)
        return logits


def row_gru(shape: Sequence[int], classes: int, width: float = 1.0) -> RowGRU:
    """A GRU of 128 units over the rows of an image; 61,184 weights at 28x28.

    Arguments as in :func:`lenet_300_100`; ``width`` scales the units.

    Example:
        >>> row_gru((1, 28, 28), 10)(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """
    check_shape(shape, 1, classes)
    (hidden,) = sizes(width, 128)
    return RowGRU(shape[0] * shape[2], hidden, classes)
