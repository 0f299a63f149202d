"""`python -m recfs`: the command line without an installed script."""

from recfs.cli.main import main

if __name__ == "__main__":
    main()
