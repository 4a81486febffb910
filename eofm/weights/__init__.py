"""Published weights and exports: cards, download, encoders with their recipe, programs."""
