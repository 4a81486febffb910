"""`eofm labels`: multi-labels from land-cover maps of any size, for windows or for scenes."""
