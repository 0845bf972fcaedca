"""What the command says on standard error, and what of Lightning's it lets through."""
