"""Data sets: files in, one flat record of images, boxes and labels out."""
