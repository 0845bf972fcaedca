"""What surrounds a run in its process: whose that is, how its threads wait, its helpers, and what is put back."""
