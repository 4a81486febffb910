"""What is made of records: tables, figures, comparisons, checks."""
