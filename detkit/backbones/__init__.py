"""Backbones: images in, feature maps of several strides out."""
