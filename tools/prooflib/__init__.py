"""What tools/proof_databases.py is made of."""
