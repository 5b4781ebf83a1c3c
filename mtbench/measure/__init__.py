"""How a kernel is measured: one idea a file."""
