"""Box coders: between boxes and what a head regresses."""
