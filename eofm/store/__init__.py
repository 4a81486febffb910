"""The packed store: its format, how it is written, read, edited and described."""
