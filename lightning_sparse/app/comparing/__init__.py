"""What takes several jobs, computed once a sweep has ended."""
