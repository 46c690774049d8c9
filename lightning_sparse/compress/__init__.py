"""What bits a network needs: lossless codecs that decode exactly, values rounded to a grid, and the length of a code."""
