"""What a `data=` option names: each source loads rows."""
