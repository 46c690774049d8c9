"""Which connections are worth most: of one layer, with a memory, and of the whole network."""
