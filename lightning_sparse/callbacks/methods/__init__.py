"""One short file a method: the choices of a recipe under the name that its paper gave it."""
