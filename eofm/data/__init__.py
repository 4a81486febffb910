"""Reading rasters, land-cover maps and data sets; the packed store; the embedded world."""
