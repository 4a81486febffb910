"""Plain networks, the adaptation of foreign weights to them, and encoders with their recipe."""
