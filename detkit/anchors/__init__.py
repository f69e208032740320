"""Anchor generators: from feature map sizes to boxes."""
