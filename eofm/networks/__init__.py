"""Plain networks, and the adaptation of foreign weights to them: state dict in, state dict out."""
