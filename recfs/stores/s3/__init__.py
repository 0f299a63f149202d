"""S3 behind the object store port, on boto3. The only room that imports boto3."""
