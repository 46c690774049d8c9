"""The measurements that a job can be asked for, and running those that are missing."""
