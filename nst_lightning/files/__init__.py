"""What lies on a disk: files that are whole at every moment, folders that last, failures that cost one file."""
