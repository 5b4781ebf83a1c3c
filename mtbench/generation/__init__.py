"""Generating from a checkpoint of `mtbench train`: how fast, in how much memory, and whether the parallel
form of the model gives what was drawn the likelihood that the sampler saw.

`source` finds what a checkpoint is of, `measure` draws and times, `command` keeps the folder, `results` reads
it, `claims` holds what a paper says of speed against it. Only `measure` imports torch.
"""
