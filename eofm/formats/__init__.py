"""Reading what others wrote: one reader per format, and one way in which it fails.

Whatever is wrong with a file (its bytes, its encoding, its types, its claims of size), a reader
raises an error of eofm that names the file. Nothing here is imported until it is needed.
"""
