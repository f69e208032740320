"""How fast a detector is, stage by stage, and how large: the verb `detkit bench`."""
