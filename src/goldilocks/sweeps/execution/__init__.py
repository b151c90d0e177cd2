"""Trials are planned, run and recorded."""
