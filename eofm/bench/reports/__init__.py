"""Reports from records: tables, figures, comparisons, checks."""
