"""Labelled images, whatever the data set: files, splits, places, copies."""
