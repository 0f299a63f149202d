"""What is still to be done in S3, and who does it: uploads, moves, deletions."""
