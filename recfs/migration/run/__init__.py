"""What is done with a plan: files are brought to their targets, proven, and only then deleted; or taken back."""
