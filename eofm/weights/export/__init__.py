"""Writing encoders for others: weights, programs, a page and a script beside them."""
