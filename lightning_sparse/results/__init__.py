"""What a sweep's folder holds: jobs, rows of measurements, and the log of its launches. Read without torch."""
