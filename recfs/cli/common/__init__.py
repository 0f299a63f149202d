"""What every command has: its options, exit codes and output, and which store it means."""
