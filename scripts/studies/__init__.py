"""What made the numbers of the docs. Each page says which command makes it again."""
