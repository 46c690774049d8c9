"""One look at the images that a network learns: its logits, and two gradients in the pixels, or in the vectors of words."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lightning_sparse.anatomy.isolation import device_of, untouched
from lightning_sparse.measure.checks import check_images
from lightning_sparse.measure.classifier import as_classifier, batches, check_gradient
from lightning_sparse.measure.input_gradient import logits_and_leaf, words_of
from lightning_sparse.measure.outputs import check_logits
from lightning_sparse.measure.smaller_batches import smaller_batches


class Look(NamedTuple):
    """What was seen, on the CPU: logits (n, classes); the gradients of the given label's logit and of its loss, (n, H, W)."""

    logits: Tensor
    of_logit: Tensor
    of_loss: Tensor


@smaller_batches
def look_at(model: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int = 256) -> Look:
    """Look in eval mode; the model is left as it was. Gradients are means over channels, as those of VOG are.

    Raises:
        SparsityError: if images, labels or the model's outputs are not what they should be.

    Example:
        >>> seen = look_at(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), torch.rand(2, 1, 2, 2), torch.tensor([0, 2]))
        >>> seen.logits.shape, seen.of_logit.shape, seen.of_loss.shape
        (torch.Size([2, 3]), torch.Size([2, 2, 2]), torch.Size([2, 2, 2]))
    """
    check_images(images, labels)
    classifier = as_classifier(model)
    seen: list[tuple[Tensor, ...]] = []
    with untouched(classifier):
        check_gradient(classifier, images)
        words = words_of(classifier, images)
        for part, targets in batches(batch_size, device_of(classifier), images, labels):
            logits, leaf = logits_and_leaf(classifier, part, words)
            check_images(part, targets, classes=logits.shape[1])
            chosen = logits.gather(1, targets.unsqueeze(1)).sum()
            (of_logit,) = torch.autograd.grad(chosen, leaf, retain_graph=True)
            (of_loss,) = torch.autograd.grad(cross_entropy(logits, targets, reduction="sum"), leaf)
            seen.append((logits.detach().float().cpu(), of_logit.mean(dim=1).cpu(), of_loss.mean(dim=1).cpu()))
    found = Look(*(torch.cat(parts) for parts in zip(*seen, strict=True)))
    check_logits(found.logits)
    return found
