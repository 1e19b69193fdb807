"""The defences, a file each: what it does to retain texts, its numbers, what it learns. `scope.py` is the shortest."""
