"""What the callbacks have to know of Lightning: its loops, strategies, averages and what it refuses."""
