"""Anchor generators: feature map sizes in, boxes out."""
