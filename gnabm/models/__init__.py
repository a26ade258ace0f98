"""Shipped models: one file each, the same sections in the same order."""
