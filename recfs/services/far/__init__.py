"""What services do in the bucket, or with what it has."""
