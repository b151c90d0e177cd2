"""Shows for every option that it does what it says: the rows of docs/options.md.

One file for each group. A row runs the option as a run does, from the composed configuration, and
compares what comes out with the formula of the paper, which is written out here by hand: nothing in
this folder imports the code that it judges, except to run it.
"""
