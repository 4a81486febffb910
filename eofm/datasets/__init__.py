"""Known data sets, one file each, and folders of one's own."""
