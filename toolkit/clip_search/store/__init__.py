"""What an index keeps: its database and the folder that it is of."""
