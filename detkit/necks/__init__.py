"""Necks: a backbone's feature maps in, the levels that a head looks at out."""
