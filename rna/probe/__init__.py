"""The command `python -m rna.probe`: recorded trials are asked whether what they forgot comes back."""
