"""Saying what is in a store: card, drawing, statistics, checksums."""
