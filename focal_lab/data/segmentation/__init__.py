"""Data sets with a class for every pixel."""
