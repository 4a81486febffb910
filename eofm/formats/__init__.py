"""Readers for files of other programs: one reader per format, with one kind of failure.

For any fault of a file (its bytes, encoding, types, or declared sizes), a reader raises an error of
eofm that names the file. Modules are imported lazily.
"""
