"""One network is fitted."""
