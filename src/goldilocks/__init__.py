"""Goldilocks: networks trained just right, from configurations composed of small named options."""

__version__ = "0.1.0"
