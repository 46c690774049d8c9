"""What small changes of images and weights do to a network."""
