"""From a trained model to images: latents, decoding, labels, files."""
