"""Getting published files: one downloader, and the record of what came first."""
