"""How many bits a network takes: lossless codecs, values rounded to a grid, and code lengths."""
