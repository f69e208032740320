"""Class losses, box losses and normalizers."""
