"""The momentum transformer in PyTorch: any attention of the spec on any backend of torch, and momentum over
depth.

`config` says what a model is and imports no torch; `model` builds it; `connections` has the momentum over
depth, `attention` the attention over positions, `recurrent` and `generation` one token at a time.
"""
