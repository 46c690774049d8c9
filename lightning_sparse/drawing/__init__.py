"""The house style of figures, and a schedule as a picture and a table."""
