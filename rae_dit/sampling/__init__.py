"""Sampling with a trained model: latents, decoding, labels, image files."""
