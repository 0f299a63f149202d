"""What a store tells of itself: its status, files, quotas and settings."""
