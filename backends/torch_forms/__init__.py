"""The three attentions as plain PyTorch, by form. `torch_eager` runs them; `torch_compile` compiles them.

Importing this package, and its `caveats`, does not import torch.
"""
