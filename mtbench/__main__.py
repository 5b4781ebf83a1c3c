"""``python -m mtbench``."""

from mtbench.cli import main

if __name__ == "__main__":
    main()
