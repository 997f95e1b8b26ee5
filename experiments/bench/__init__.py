"""What experiments/benchmark.py times: the published procedure, written directly, and the library's stages."""
