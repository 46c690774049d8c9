"""The style of all figures, and a schedule as a picture and a table."""
