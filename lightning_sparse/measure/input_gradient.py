"""What a gradient in the input is of: the pixels of an image, or the vectors of a text's words."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_sparse.anatomy.tokens import are_tokens, moved, word_embedding


def words_of(classifier: nn.Module, inputs: Tensor) -> nn.Embedding | None:
    """The embedding of the words of texts (n, length), found on the first of them; None for images.

    Raises:
        SparsityError: if the tokens have no single embedding.
    """
    if not are_tokens(inputs):
        return None
    device = next(classifier.parameters()).device
    return word_embedding(classifier, inputs[:1].to(device, torch.int64))


def logits_and_leaf(classifier: nn.Module, inputs: Tensor, words: nn.Embedding | None) -> tuple[Tensor, Tensor]:
    """Give the logits (n, classes), and a tensor that they have a gradient in.

    Args:
        classifier: inside ``untouched``, with gradients enabled.
        inputs: pixels (n, C, H, W), or tokens (n, length), on the classifier's device.
        words: what :func:`words_of` found.

    Returns:
        Logits, and the pixels (n, C, H, W), or, for texts, a move of zeros that is added to the words' vectors, laid out as
        an image of a row (n, dimensions, 1, length): means and sums over channels are those over dimensions.

    Example:
        >>> model = nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.Linear(6, 2))
        >>> tokens = torch.tensor([[2, 5]])
        >>> logits, leaf = logits_and_leaf(model, tokens, words_of(model, tokens))
        >>> torch.autograd.grad(logits[0, 1], leaf)[0].shape
        torch.Size([1, 3, 1, 2])
    """
    if words is None:
        leaf = inputs.detach().requires_grad_(True)
        return classifier(leaf.clone()), leaf  # a copy, because a model may write into its input
    n, length = inputs.shape
    leaf = torch.zeros(n, words.embedding_dim, 1, length, device=inputs.device, requires_grad=True)
    with moved(words, leaf.squeeze(2).transpose(1, 2).to(words.weight.dtype)):
        return classifier(inputs), leaf
