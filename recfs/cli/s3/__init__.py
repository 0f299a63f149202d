"""Files in S3: which have a copy here, where the rules want them, and what operators ask of the bucket."""
