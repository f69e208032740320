"""The verbs of `detkit data`, a module each."""
