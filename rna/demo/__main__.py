"""`python -m rna.demo FOLDER`: see `rna.demo.rebuild` (worker processes cannot import from a `__main__`)."""

from rna.demo.rebuild import main

if __name__ == "__main__":
    main()
