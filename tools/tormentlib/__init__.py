"""What tools/torment_host.py is made of."""
