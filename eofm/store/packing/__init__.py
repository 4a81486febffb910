"""Making a store: from rasters or items to rows, in one process or in several."""
