"""What is seen of a run while it goes on.

`rows` and `loggers` write numbers; `pace` says how fast it is; `measures` are the numbers an
embedding is judged by, `online` takes them of held-out scenes now and then; `guard` stops a run
that has collapsed, and `diagnosis` says where a NaN came from; `stability` reads the gap. Nothing
here draws from a random source that training uses, or changes a buffer.
"""
