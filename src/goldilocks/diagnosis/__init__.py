"""What is wrong, before training and after."""
