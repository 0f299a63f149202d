"""What people and programs are told of what happens: kinds of events, cursors, and how both are written."""
