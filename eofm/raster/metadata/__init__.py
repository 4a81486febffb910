"""What files say of their pixels: bands, masks, units, tags."""
