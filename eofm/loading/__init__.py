"""From stores to batches: sampling order, read-ahead, and random views."""
