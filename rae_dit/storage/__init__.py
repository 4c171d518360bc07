"""Every path the project reads or writes."""
