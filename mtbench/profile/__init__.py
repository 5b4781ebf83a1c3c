"""Where the time and the memory of one call go, and what bounds it."""
