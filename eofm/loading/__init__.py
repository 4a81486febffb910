"""From stores to batches: which rows come when, reading ahead, random views."""
