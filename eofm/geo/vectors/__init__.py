"""Vectors with their place: types, files, and the numbers they are stored in."""
