"""Data sets: records, splits, crops on disk, augmentation, and pairs as tensors."""
