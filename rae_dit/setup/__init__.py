"""Config -> objects: the only package that matches on config values."""
