"""What a run minimises, one file for each term: see `eofm.method.terms.seam`."""
