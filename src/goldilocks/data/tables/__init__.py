"""How a file of a table becomes numbers."""
