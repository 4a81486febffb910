"""Changing a finished store: copies of it, other labels, a newer format."""
