"""The one detector body, its assembly, and what is made of its predictions."""
