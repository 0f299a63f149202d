"""What others do in the home tree past the mount: told by inotify(7), and seen by looking."""
