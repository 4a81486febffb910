"""What pixels are, what networks expect, and the one legal way from the one to the other."""
