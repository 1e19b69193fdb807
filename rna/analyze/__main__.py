"""`python -m rna.analyze`."""

from rna.analyze.command import main

if __name__ == "__main__":
    main()
