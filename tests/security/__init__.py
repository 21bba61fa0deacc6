"""Who may log in, and that nobody else learns how."""
