"""From vectors and polygons to a class map with its accuracy: `eofm map`."""
