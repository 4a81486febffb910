"""Protocols without a fit: prompt patches of a segmentation, texts of class names."""
