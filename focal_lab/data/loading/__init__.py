"""Decoding images, listing files, batches, worker processes."""
