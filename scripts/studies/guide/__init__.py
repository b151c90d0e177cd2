"""The experiments behind docs/guide.md: what is trained, what is concluded, how it is drawn."""
