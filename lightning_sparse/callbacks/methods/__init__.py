"""The methods, a short file each: the choices of a recipe under the name that the paper gave them."""
