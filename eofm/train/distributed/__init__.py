"""A run of several processes: how they meet, share batch norms, and shard what does not fit."""
