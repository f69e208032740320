"""Backbones: from images to feature maps of several strides."""
