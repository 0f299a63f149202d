"""What S3 has comes back: single requests, put together to whole or partial copies."""
