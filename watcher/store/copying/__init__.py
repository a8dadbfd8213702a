"""Copying a whole store into an empty one, of the same kind of database or the other."""
