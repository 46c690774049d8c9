"""The methods, short files by family: the choices of a recipe under the name that the paper gave them."""
