"""The experiments of docs/guide.md: what is trained, what is concluded, how it is drawn."""
