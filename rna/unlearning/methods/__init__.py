"""The forget losses, a file each: its numbers, what it reads, its label, its loss. `npo.py` is the shortest."""
