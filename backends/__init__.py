"""The backends that come with mtbench: one module, or folder of kernels, each; every one exports BACKEND.

They import `mtbench.spec`, `mtbench.backend`, `mtbench.frameworks` and nothing else of the house: neither the
oracle that judges them nor each other. Within this package imports are relative, because a wheel carries it
under another name.
"""
