"""What the rows of a store say: places, splits, choices, labels."""
