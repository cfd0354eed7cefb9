"""Builds TensorRT plans from a bundle on the device that will run them, and proves what they are.

No module here imports TensorRT when it is imported, and none imports torch but for a certificate.
"""
