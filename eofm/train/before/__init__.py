"""Before the first step: the demo's world, doubts, and a dry run."""
