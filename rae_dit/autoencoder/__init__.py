"""Stage 1: what the decoder learns from, and the statistics of its latents."""
