"""timm: networks with its own weights, and ours under its names."""
