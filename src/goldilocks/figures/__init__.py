"""What draws a run."""
