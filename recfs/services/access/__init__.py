"""Who gets at what: users, and their uids."""
