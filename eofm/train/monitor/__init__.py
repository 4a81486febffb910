"""What is measured of a run while it trains.

`run_log` writes numbers; `throughput` says how fast it is; `online` takes the numbers an embedding
is judged by of held-out scenes now and then; `guard` stops a run that has collapsed. Nothing here
draws from a random state that training uses, or changes a buffer.
"""
