"""Floor 4: the socket and its verbs. How they are carried out is below."""
