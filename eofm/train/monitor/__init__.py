"""Measurements during training.

`run_log` writes values; `throughput` measures speed; `online` evaluates embeddings of held-out
scenes at intervals; `guard` stops a run that has collapsed. No module here draws from a random
state that training uses, or changes a buffer.
"""
