"""What is measured of a run while it trains.

`run_log` and `loggers` write numbers; `throughput` says how fast it is; `measures` are the numbers
an embedding is judged by, `online` takes them of `held_out` scenes now and then; `guard` stops a
run that has collapsed, and `diagnosis` says where a NaN came from. Nothing here draws from a random
state that training uses, or changes a buffer.
"""
