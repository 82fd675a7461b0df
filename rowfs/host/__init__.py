"""Floor 1: what the host knows of a mount: where it can be seen, who uses its files, what is mounted from them."""
