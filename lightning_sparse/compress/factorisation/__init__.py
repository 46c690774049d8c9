"""Ways to write the weight of a layer as a product: how many numbers each takes, the layers it gives, and their values."""
