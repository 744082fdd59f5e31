"""The rooms one by one, in one process."""
