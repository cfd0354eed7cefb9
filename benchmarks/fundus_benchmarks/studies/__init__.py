"""What gates and heat maps are right about, on real and drawn eyes."""
