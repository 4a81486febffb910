"""Formats of products: SAFE, STAC, netCDF and Zarr."""
