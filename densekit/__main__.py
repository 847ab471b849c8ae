"""`python -m densekit`."""

from densekit.cli import main

if __name__ == "__main__":
    main()
