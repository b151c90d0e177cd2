"""What `goldilocks VERB` does, a file a verb; scripts/ has some of them as programs."""
