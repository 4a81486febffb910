"""Names of tensors in published files, and those of eofm's networks."""
