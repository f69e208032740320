"""Compiling, finding and loading the native library."""
