"""Where rows come from: one file a kind of source, the spec that the network needs,
and the loaders.
"""
