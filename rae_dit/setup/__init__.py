"""From a config to objects: the only room that matches on config values."""
