"""Non-maximum suppression: native kernels and their plain reference."""
