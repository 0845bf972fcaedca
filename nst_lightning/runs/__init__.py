"""Runs on the disk: folders, checkpoints and what they say, finding one to go on with, and freeing space."""
