"""Necks: from a backbone's feature maps to the levels of a head."""
