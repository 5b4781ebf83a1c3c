"""The commands that join several rooms; what is one room's own is its ``cli.py``."""
