"""Who may: tokens, sessions, links, and what each of them is let do."""
