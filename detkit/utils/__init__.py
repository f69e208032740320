"""Console text, output files, errors in words, safe reading of pickles and safetensors."""
