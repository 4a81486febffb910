"""What files say of their pixels: bands, dates, masks, scale, tags."""
