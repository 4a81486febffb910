"""From land-cover maps to multi-labels: schemes, maps, counting, tables."""
