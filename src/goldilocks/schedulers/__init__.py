"""How the learning rate changes."""
