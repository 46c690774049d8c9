"""The steps of a compression, a file for each; ``step`` says what they have in common."""
