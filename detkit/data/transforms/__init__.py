"""Augmentation and resizing, on torchvision.transforms.v2."""
