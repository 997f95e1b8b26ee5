"""`python -m metake`: the command line."""

from metake.cli import main

if __name__ == "__main__":
    main()
