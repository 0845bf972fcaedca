"""What each stage will take: tiles, memory, time."""
