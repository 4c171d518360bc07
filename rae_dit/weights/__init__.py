"""The only door for other people's files: what they call a tensor, and what we call it."""
