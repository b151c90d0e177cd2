"""Networks as plain `nn.Module`s, one file a family; activations and initial weights beside them.

A network's constructor takes `input_shape` and `num_outputs`, which the run adds from the data, and
the flat keywords of its option. It returns raw outputs (logits for classes), [B, num_outputs].
"""
