"""Several runs trained as one network with a leading axis: each its own, only the steps together.

Legend, here and below: R runs, P parameters of a network, B batch, F features, C outputs.
"""
