"""What a sweep has found: page, tables, plots, conclusions."""
