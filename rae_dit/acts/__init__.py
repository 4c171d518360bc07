"""One file per mode of the command line; training has a room of its own."""
