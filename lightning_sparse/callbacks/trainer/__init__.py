"""What the callbacks need to know about Lightning: its loops, strategies and averages, and what they refuse."""
