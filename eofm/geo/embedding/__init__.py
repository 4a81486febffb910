"""From scenes to vectors: `eofm embed`."""
