"""What a run leaves: its result, and `eofm report`: the page about one run, or about several.

`result` is the table at the end of a run; `curves` reads what a run wrote down and turns its
numbers into panels, `pictures` shows what its encoders make of imagery, and `page` puts the page
together.
"""
