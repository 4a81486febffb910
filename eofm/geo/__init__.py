"""From scene to map: vectors of places, and what is made of them."""
