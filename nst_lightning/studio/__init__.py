"""The studio: a server whose page, and whose HTTP, do what the command line does."""
