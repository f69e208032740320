"""Box coders: between boxes and the deltas of a head."""
