"""One case on several devices: a process for each, which work on it together."""
