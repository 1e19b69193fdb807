"""`python -m rna.sweep`."""

from rna.sweep.commands import main

if __name__ == "__main__":
    main()
