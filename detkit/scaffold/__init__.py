"""What `detkit new` writes: a working template for every kind of part, in a folder each."""
