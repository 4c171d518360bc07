"""What a run minimizes: one file per objective."""
