"""What lies in a sweep's folder: jobs, rows of measurements, what its launches did. Readable without torch."""
