"""Small networks of texts, each of any width: tokens (n, length), of which 0 is padding, in; logits (n, classes) out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_sparse.anatomy.tokens import PAD
from lightning_sparse.errors import SparsityError, check_choice, check_count
from lightning_sparse.models.networks import sizes

# Far above any of use here; what is larger is a slip, and would fill the memory.
_MOST_WORDS, _MOST, _MOST_LAYERS = 10**7, 2**14, 256


class BagOfWords(nn.Module):
    """The mean of the words' vectors, and a hidden layer (after Iyyer et al. 2015, deep averaging networks)."""

    def __init__(self, words: int, classes: int, dimensions: int, hidden: int) -> None:
        super().__init__()
        self.words = vectors_of(words, dimensions, PAD)
        self.hidden = nn.Linear(dimensions, hidden)
        self.classes = nn.Linear(hidden, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (n, length) to logits (n, classes)."""
        logits: Tensor = self.classes(F.relu(self.hidden(mean_of_words(self.words(tokens), tokens))))
        return logits


def vectors_of(number: int, dimensions: int, padding: int | None = None) -> nn.Embedding:
    """An embedding whose vectors have a length of about 1, and that of padding one of 0.

    torch's own have weights many times as large as a Linear layer's: one ranking of both by magnitude would prune the layers
    away before any word, and vectors of places would drown those of words.

    Example:
        >>> lengths = vectors_of(1000, 64, padding=0).weight.detach().norm(dim=1)
        >>> round(float(lengths[1:].mean()), 1), float(lengths[0])
        (1.0, 0.0)
    """
    vectors = nn.Embedding(number, dimensions, padding_idx=padding)
    nn.init.normal_(vectors.weight, std=dimensions**-0.5)
    if padding is not None:
        with torch.no_grad():
            vectors.weight[padding] = 0
    return vectors


def mean_of_words(vectors: Tensor, tokens: Tensor) -> Tensor:
    """The mean (n, dimensions) of vectors (n, length, dimensions) over the places that are not padding; 0 of none.

    Example:
        >>> mean_of_words(torch.tensor([[[2.0], [4.0], [9.0]]]), torch.tensor([[5, 6, 0]]))
        tensor([[3.]])
    """
    there = (tokens != PAD).unsqueeze(2).to(vectors.dtype)
    return (vectors * there).sum(dim=1) / there.sum(dim=1).clamp_min(1)


def bag_of_words(words: int, classes: int, *, dimensions: int = 64, hidden: int = 64, width: float = 1.0) -> BagOfWords:
    """A network that sees which words a text has, and not their order.

    Args:
        words: size of the vocabulary, with padding and the unknown word.
        classes: number of classes.
        dimensions: of a word's vector.
        hidden: units of the hidden layer.
        width: factor of ``dimensions`` and ``hidden``, above 0; each is rounded, and at least 1.

    Example:
        >>> bag_of_words(100, 3)(torch.tensor([[2, 5, 0], [7, 1, 4]])).shape
        torch.Size([2, 3])
    """
    check_count("words", words, 3, most=_MOST_WORDS, write=8000)
    check_count("classes", classes, 2, write=10)
    check_count("dimensions", dimensions, most=_MOST, write=64)
    return BagOfWords(words, classes, *sizes(width, dimensions, check_count("hidden", hidden, most=_MOST, write=64)))


class Block(nn.Module):
    """A pre-norm block: attention, then a layer of four times the dimensions, each added to what comes in."""

    def __init__(self, dimensions: int, heads: int, *, rotary: bool, causal: bool) -> None:
        super().__init__()
        self.heads, self.rotary, self.causal = heads, rotary, causal
        self.attention_norm, self.mlp_norm = nn.LayerNorm(dimensions), nn.LayerNorm(dimensions)
        self.queries, self.keys, self.values, self.out = (nn.Linear(dimensions, dimensions) for _ in range(4))
        self.up, self.down = nn.Linear(dimensions, 4 * dimensions), nn.Linear(4 * dimensions, dimensions)

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        """Map x (n, length, dimensions) to the same shape; ``there`` (n, length), bool, are the places that may be read."""
        y = self.attention_norm(x)
        queries, keys, values = (
            layer(y).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.queries, self.keys, self.values)
        )
        if self.rotary:
            queries, keys = turned(queries), turned(keys)
        read = there[:, None, None, :]
        if self.causal:
            length = x.shape[1]
            read = read & torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=read)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        more: Tensor = self.down(F.gelu(self.up(self.mlp_norm(x))))
        return x + more


def turned(x: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021, arXiv 2104.09864): pairs of x (..., length, d) turned by place / 10000^(2i / d).

    Example:
        >>> x = torch.ones(1, 3, 4)
        >>> bool(torch.allclose(turned(x)[0, 0], x[0, 0])), bool(torch.allclose(turned(x).norm(), x.norm()))
        (True, True)
    """
    length, half = x.shape[-2], x.shape[-1] // 2
    speed = 10000.0 ** (-torch.arange(half, device=x.device) / half)
    angle = torch.arange(length, device=x.device).unsqueeze(1) * speed
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


class Transformer(nn.Module):
    """Words' vectors, pre-norm blocks, and a layer on the mean of the words, or on every word if it is causal."""

    def __init__(
        self,
        words: int,
        classes: int,
        length: int,
        dimensions: int,
        heads: int,
        layers: int,
        rotary: bool,
        causal: bool,
    ) -> None:
        super().__init__()
        self.words = vectors_of(words, dimensions, PAD)
        self.places = None if rotary else vectors_of(length, dimensions)
        self.blocks = nn.ModuleList(Block(dimensions, heads, rotary=rotary, causal=causal) for _ in range(layers))
        self.norm = nn.LayerNorm(dimensions)
        self.classes = nn.Linear(dimensions, classes)
        self.causal = causal

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (n, length) to logits (n, classes), or of a causal one to (n, length, words)."""
        there = tokens != PAD
        there = there | (torch.arange(tokens.shape[1], device=tokens.device) == 0)  # attention to nothing is NaN
        x = self.words(tokens)
        if self.places is not None:
            x = x + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x, there)
        x = self.norm(x)
        logits: Tensor = self.classes(x if self.causal else mean_of_words(x, tokens))
        return logits


def tiny_transformer(
    words: int,
    classes: int,
    length: int,
    *,
    dimensions: int = 64,
    heads: int = 4,
    layers: int = 2,
    positions: str = "learned",
    width: float = 1.0,
) -> Transformer:
    """A pre-norm transformer that classifies texts by the mean of its outputs over their words.

    Args:
        words: size of the vocabulary, with padding and the unknown word.
        classes: number of classes.
        length: the most words of a text.
        dimensions: of a word's vector; a multiple of twice the heads.
        heads: of the attention.
        layers: number of blocks.
        positions: ``"learned"``, a vector for each place, or ``"rotary"`` (Su et al. 2021).
        width: factor of ``dimensions``, above 0, rounded to a multiple of twice the heads.

    Example:
        >>> net = tiny_transformer(100, 3, length=8, positions="rotary")
        >>> net(torch.tensor([[2, 5, 0], [7, 1, 4]])).shape
        torch.Size([2, 3])
    """
    dimensions = _checked(words, length, dimensions, heads, layers, positions, width)
    check_count("classes", classes, 2, write=10)
    return Transformer(words, classes, length, dimensions, heads, layers, positions == "rotary", causal=False)


def tiny_gpt(
    words: int,
    length: int,
    *,
    dimensions: int = 64,
    heads: int = 4,
    layers: int = 2,
    positions: str = "learned",
    width: float = 1.0,
) -> Transformer:
    """A pre-norm transformer that foretells the next word at each place: logits (n, length, words), its vectors tied.

    Arguments as in :func:`tiny_transformer`; a place sees itself and those before it. The layer of the logits has the words'
    vectors as its weight (Press & Wolf 2017), so a mask on one is a mask on both.

    Example:
        >>> tiny_gpt(100, length=8)(torch.tensor([[2, 5, 0], [7, 1, 4]])).shape
        torch.Size([2, 3, 100])
    """
    dimensions = _checked(words, length, dimensions, heads, layers, positions, width)
    net = Transformer(words, words, length, dimensions, heads, layers, positions == "rotary", causal=True)
    net.classes.weight = net.words.weight
    return net


def _checked(words: int, length: int, dimensions: int, heads: int, layers: int, positions: str, width: float) -> int:
    """The dimensions at this width, if all arguments are in range."""
    check_choice("positions", positions, ("learned", "rotary"))
    check_count("words", words, 3, most=_MOST_WORDS, write=8000)
    check_count("length", length, most=_MOST, write=32)
    check_count("heads", heads, most=_MOST_LAYERS, write=4)
    check_count("layers", layers, most=_MOST_LAYERS, write=2)
    check_count("dimensions", dimensions, most=_MOST, write=64)
    if dimensions % (2 * heads):
        least = 2 * heads * max(1, round(dimensions / (2 * heads)))
        raise SparsityError(
            f"dimensions={dimensions} is not a multiple of twice the heads={heads}: write dimensions={least}"
        )
    (found,) = sizes(width, dimensions // (2 * heads))
    return found * 2 * heads
