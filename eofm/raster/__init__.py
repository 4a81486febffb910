"""From raster files to images that know what they are and where they lie."""
