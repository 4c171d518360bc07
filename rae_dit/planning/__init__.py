"""What a training step will need on given devices, read off its compiled program."""
