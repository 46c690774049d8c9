"""What a job can be asked to measure, and measuring what is missing of it."""
