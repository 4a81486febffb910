"""`eofm report`: the page about a run, or about several.

`record` reads what a run wrote down, `panels` turns its numbers into panels of curves, `scenes`
shows what its encoders make of imagery, and `build` puts the page together.
"""
