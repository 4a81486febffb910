"""`eofm report`: one self-contained HTML page about a run, or about several.

`record` reads what a run wrote down, `charts` draws its curves, `scenes` and `pictures` show what
its encoders make of imagery, `markup` is the HTML; `build` puts one run in order, and `comparison`
several.
"""
