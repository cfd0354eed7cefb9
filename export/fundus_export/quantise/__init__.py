"""Quantisation after training: ranges measured on real photographs, then graphs in INT8."""
