"""The door: the command line, help, errors as one line."""
