"""What is read out of botocore's answers otherwise than botocore does."""
