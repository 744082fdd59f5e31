"""Access: users, tokens, accounts, and the seal around their credentials."""
