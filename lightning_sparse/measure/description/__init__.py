"""How many bits, bytes and FLOPs a network needs."""
