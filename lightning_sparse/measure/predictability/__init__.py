"""How much of what a layer computes a few of its weights tell, and the rest is predicted from them."""
