"""Readers and writers of third-party weights, both by one mapping of tensor names."""
