"""What the product promises of itself beside its peers, measured in turns."""
