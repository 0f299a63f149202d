"""What is done to the home tree past recfs, and what becomes of it: compared, judged, and made rows."""
