"""Yours: networks, data, losses and callbacks that options in conf/ name.
docs/extending.md tells how.
"""
