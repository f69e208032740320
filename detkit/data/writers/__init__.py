"""Data sets to files: a writer per format, which keeps every box of the file as it is."""
