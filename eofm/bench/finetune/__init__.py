"""Training on images: networks with heads, by the protocols of papers or by our own."""
