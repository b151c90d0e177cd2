"""This machine: devices, threads, compilation, signals, locks, files written atomically."""
