"""Console text, output files, local paths and URLs, safe unpickling."""
