"""The rows of docs/options.md: for every option what it claims, and a measurement that shows it.

One file a group. A row drives the option as a run does, from the composed configuration, and compares what comes out
with the formula of the paper, written out here by hand: nothing in this folder imports the code that it judges but to
run it.
"""
