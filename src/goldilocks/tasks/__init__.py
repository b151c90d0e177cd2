"""What is learnt: losses, metrics, outputs, the objective."""
