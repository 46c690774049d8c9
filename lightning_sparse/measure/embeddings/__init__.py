"""Tables of embeddings: how even their directions are, what they know of words, and what all of their rows share."""
