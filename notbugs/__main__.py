"""`python -m notbugs`."""

from notbugs.cli import main

if __name__ == "__main__":
    main()
