"""From scene to map: georeferenced embedding vectors and the maps made from them."""
